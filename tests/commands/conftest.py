"""The program, called as a user calls it."""

import sys

import pytest

from selfdistill import cli


@pytest.fixture
def run(capsys):
    """Calls the program with words -> (exit code, standard output, standard error)."""

    def call(*words):
        capsys.readouterr()
        code, argv = 0, sys.argv
        sys.argv = ["selfdistill", *map(str, words)]
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = argv
        out, err = capsys.readouterr()
        return code, out, err

    return call
