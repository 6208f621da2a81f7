"""Who may import whom, as `pyproject.toml` has it."""

import tiny
from importlinter.cli import lint_imports


def test_the_contracts_are_kept(monkeypatch, capsys):
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.syspath_prepend(tiny.ROOT)
    status = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert status == 0, capsys.readouterr().out
