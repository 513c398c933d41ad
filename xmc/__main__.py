"""`python -m xmc`."""

from xmc.cli import main

if __name__ == "__main__":
    main()
