"""`python -m asymseg` is the same as `asymseg`."""

from asymseg.cli import main

if __name__ == "__main__":
    main()
