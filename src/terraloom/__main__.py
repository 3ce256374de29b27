"""`python -m terraloom` is the `terraloom` command."""

from terraloom.cli import main

if __name__ == "__main__":
    main()
