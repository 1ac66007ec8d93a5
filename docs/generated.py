"""Pages of the site that are written from the code when it is built: the reference of all settings."""

from __future__ import annotations

from itertools import groupby

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ldsaug_ray.config import describe

OPENING = """\
# Settings

Every setting, its default and meaning, as `ldsaug settings` prints them. In a YAML file a section is a level of its
own; on the command line a setting is `name=value`. `(required)` must be given, `null` is none.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this once it has listed docs/."""
    files.append(File.generated(config, "settings.md", content=settings_page()))
    return files


def settings_page() -> str:
    """Markdown: a heading a section, a table of its settings below."""
    parts = [OPENING]
    for section, rows in groupby(describe(), lambda row: row[0].rpartition(".")[0]):
        parts.append(f"## {section or 'Of the run'}\n\n| setting | default | meaning |\n| --- | --- | --- |\n")
        parts += [
            f"| `{name}` | {_cell(f'`{default}`')} | {_cell(text).replace('<', '&lt;')} |\n"
            for name, default, text in rows
        ]
        parts.append("\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
