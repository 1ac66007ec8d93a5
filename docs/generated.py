"""Pages of the site that are written when it is built: all settings, the examples; and doctests shown as code."""

from __future__ import annotations

import ast
import json
import re
from itertools import groupby
from pathlib import Path

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ldsaug_ray.config.load import settings_of

EXAMPLES = Path(__file__).parents[1] / "examples"

OPENING = """\
# Settings

Every setting, its default and meaning, as `ldsaug settings` prints them. In a YAML file a section is a level of its
own; on the command line a setting is `name=value`. `(required)` must be given, `null` is none.

"""


class Doctests(Preprocessor, Extension):
    """Lines from `>>>` to an empty line are code; to Markdown they are quotations."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(self, "doctests", 100)  # before fences are looked for

    def run(self, lines: list[str]) -> list[str]:
        text = "\n".join(lines)
        return re.sub(r"^>>> (?:.+\n?)+", lambda m: f"```pycon\n{m[0].rstrip()}\n```\n", text, flags=re.M).split("\n")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """MkDocs calls this first."""
    config.markdown_extensions.append(Doctests())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this once it has listed docs/."""
    files.append(File.generated(config, "settings.md", content=settings_page()))
    files.append(File.generated(config, "examples.md", content=examples_page()))
    return files


def examples_page() -> str:
    """Markdown: the scripts, each below its own docstring, then the cells of the notebook."""
    parts = ["# Examples\n\nThe files of `examples/`, as they stand. Tests run each of them.\n\n"]
    for file in sorted(EXAMPLES.glob("*.py")):
        text = file.read_text()
        said = ast.get_docstring(ast.parse(text)) or ""
        code = text.split('"""', 2)[2].strip()
        parts.append(f"## {file.name}\n\n{said}\n\n```python\n{code}\n```\n\n")
    for file in sorted(EXAMPLES.glob("*.ipynb")):
        parts.append(f"## {file.name}\n\n")
        for cell in json.loads(file.read_text())["cells"]:
            text = "".join(cell["source"])
            code = f"```python\n{text}\n```"
            parts.append((code if cell["cell_type"] == "code" else re.sub("^#", "###", text, flags=re.M)) + "\n\n")
    return "".join(parts)


def settings_page() -> str:
    """Markdown: a heading a section, a table of its settings below."""
    parts = [OPENING]
    for section, rows in groupby(settings_of("images"), lambda row: row[0].rpartition(".")[0]):
        parts.append(f"## {section or 'Of the run'}\n\n| setting | default | meaning |\n| --- | --- | --- |\n")
        parts += [
            f"| {_name(name)} | {_cell(f'`{default}`')} | {_cell(text).replace('<', '&lt;')} |\n"
            for name, default, text in rows
        ]
        parts.append("\n")
    return "".join(parts)


def _name(setting: str) -> str:
    """In code, to be broken after dots and underscores where the page is narrow."""
    return "<code>" + re.sub(r"(?<=[._])", "<wbr>", setting) + "</code>"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
