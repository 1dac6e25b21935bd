"""`python -m codex_ml`: the command line without the script, whose #! line not every folder name survives."""

from codex_ml.cli.main import main

if __name__ == "__main__":
    main()
