"""`ldsaug completion`: a script for bash, and zsh, that completes commands, their options, and names of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ldsaug_ray.config import describe

_SCRIPT = """\
# ~/.bashrc: eval "$(ldsaug completion)"
# ~/.zshrc: the same, after: autoload -U compinit bashcompinit; compinit; bashcompinit
_ldsaug() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} options=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    case $word in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *=* | = | */*) ;;  # a value, a path: bash's own completion
    ?*) compopt -o nospace 2>/dev/null
        COMPREPLY=($(compgen -S = -W "{settings}" -- "$word")) ;;
    esac
}}
complete -o default -F _ldsaug ldsaug
"""


def completion_script(commands: Mapping[str, Sequence[str]]) -> str:
    """The script.

    Args:
        commands: the options of each command.
    """
    return _SCRIPT.format(
        commands=" ".join(commands),
        cases="\n".join(f"    {name}) options='{' '.join(options)}' ;;" for name, options in commands.items()),
        settings=" ".join(name for name, _, _ in describe()),
    )
