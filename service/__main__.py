"""`python -m service` and the `trimtab` command."""

from service.cli import main

if __name__ == "__main__":
    main()
