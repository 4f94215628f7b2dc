"""What other libraries say."""


def silence_libraries() -> None:
    """Logs and bars of diffusers and transformers would cut through our own."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
