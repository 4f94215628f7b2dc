"""``python -m skyreels_audio``, which is what torchrun starts: the command ``skyreels-audio``."""

from skyreels_audio.cli import main

if __name__ == "__main__":
    main()
