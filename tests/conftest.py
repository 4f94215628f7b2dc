import hypothesis

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is not a bug
hypothesis.settings.load_profile("no deadline")
