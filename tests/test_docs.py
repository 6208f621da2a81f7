"""What the documents name is there: files, functions, commands' options; and their snippets run."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from ldm_jax import config as cfg
from ldm_jax.cli import sample_arguments, train
from ldm_jax.config.published_models import MODELS
from ldm_jax.convert import parts

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/RESULTS.md",
    *sorted(ROOT.glob("docs/*.md")),
]  # fmt: skip
PAGE = ROOT / "docs/from_ddpm_to_latent_diffusion.md"
ROOMS = (ROOT, ROOT / "ldm_jax", ROOT / "configs")
"""Where a path in a document may begin."""
ELSEWHERE = {
    "constraint", "editable", "help", "logdir", "xla_gpu_deterministic_ops",
    "accelerator", "ntasks", "requeue", "signal", "spot", "zone",  # of clouds and Slurm
}  # fmt: skip
"""Options that other programs have, or all."""


@cache
def defined(path: Path) -> set[str]:
    """Functions, classes, their members, constants and options of a file, by name; what `main`
    takes are options."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name="main", args=given):
                found |= {"main", *(one.arg for one in (*given.args, *given.kwonlyargs))}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.Constant(value=str(text)) if re.fullmatch(r"--\w+", text):
                found.add(text[2:])
    return found


@cache
def everything() -> set[str]:
    """All names that are defined anywhere in the package or its commands."""
    files = [*ROOT.glob("*.py"), *ROOT.glob("ldm_jax/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    of_configs = (cfg.open_config(path).options for path in ROOT.glob("configs/*.py"))
    return set().union(*map(defined, files), *of_configs)


def spans(document: Path) -> list[str]:
    """What stands in backticks, without blocks of code."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def located(path: str) -> Path | None:
    return next((room / path for room in ROOMS if (room / path).exists()), None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_names_exist(document):
    """`path.py`, `path.py: name, Class.method`, and `ldm_jax.room.file.name`."""
    wrong = []
    for span in spans(document):
        if found := re.fullmatch(r"([\w/]+\.py)(?:: (\w[\w., ]*))?", span):
            path = located(found[1])
            names = re.findall(r"\w+", found[2] or "")
            if path is None or not set(names) <= defined(path):
                wrong.append(span)
        elif found := re.match(r"(?:ldm_jax|benchmarks)(?:\.\w+)+", span):
            *parts, last = found[0].split(".")
            module = ROOT.joinpath(*parts, last)
            if module.is_dir() or module.with_suffix(".py").exists():
                continue
            home = ROOT.joinpath(*parts)
            home = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
            # Packages give names on that their files define.
            known = home.exists() and (last in defined(home) or last in home.read_text())
            if not known:
                wrong.append(span)
    assert not wrong, f"{document.name} names what is not there: {wrong}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_options_and_configs_exist(document):
    text = document.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing, f"{document.name} links to {missing}"

    options = re.findall(r"(?<![\w-])--(?:no-)?([a-z][\w.]*)", text)
    unknown = {o for o in options if o.split(".")[-1] not in everything()} - ELSEWHERE
    assert not unknown, f"{document.name} has options that nothing defines: {unknown}"

    files = re.findall(r"(?:configs|benchmarks|docs)/\w+\.(?:py|png)", text)
    absent = [name for name in files if not (ROOT / name).exists()]
    modules = re.findall(r"python -m ((?:ldm_jax|benchmarks)[\w.]*)", text)
    for module in modules:
        path = ROOT.joinpath(*module.rstrip(".").split("."))
        if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
            absent.append(module)
    assert not absent, f"{document.name} runs {absent}"


def test_the_table_of_configs_is_whole():
    text = (ROOT / "docs/train.md").read_text()
    left_out = [p.name for p in ROOT.glob("configs/*.py") if f"`{p.stem}" not in text]
    assert not left_out, f"docs/train.md lacks {left_out}"


COMMAND = re.compile(r"^ *(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?python (train|sample)\.py (.*)$", re.M)
OF_THE_READER = re.compile(r"\.\.\.|my_config|--help|--from_png")
"""In commands that cannot be read without the reader's own files."""


@pytest.mark.parametrize("program", ["train", "sample"])
def test_commands_are_read(program, monkeypatch):
    """Each with all its overrides, by the command itself, as far as before any file is opened."""
    # But for the model whose shapes a config takes over.
    monkeypatch.setattr(train, "check_model", lambda path, option: None)
    monkeypatch.setattr(parts, "model_config", lambda path: MODELS["Stable Diffusion 1"])
    parse = {"train": train.parse, "sample": sample_arguments.parse}[program]
    files = [*DOCUMENTS, *ROOT.glob("configs/*.py")]
    texts = [re.sub(r"\\\n\s*", " ", path.read_text()) for path in files]
    commands = [rest for text in texts for name, rest in COMMAND.findall(text) if name == program]
    assert len(commands) > 20
    for command in commands:
        if not OF_THE_READER.search(command):
            parse(shlex.split(command, comments=True))


def test_snippets_run():
    """Those of the page that leads through the code, one after the other; they assert."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(blocks) >= 6
    names: dict = {}
    exec("import jax, jax.numpy as jnp, numpy as np", names)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
