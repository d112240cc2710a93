"""`python -m bestiary`."""

from bestiary.cli.main import main

main()
