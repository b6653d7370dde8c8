"""How bash, zsh and fish ask for completions, and how they are answered.

Each shell is given a function that calls the program with the line up to the cursor in
``COMP_WORDS``, and takes a completion from each line of the answer: a letter for its kind, then the
value, then perhaps a tab and a text. The kinds:

    p  a value
    o  a value to which more belongs: no space behind it
    f  files, d  directories: completed by the shell itself; the value says what of the word is not
       a part of their names (``--store=``), and, behind a tab, what is

Click has scripts of its own, and they are not used, because three things go wrong there: names with
a colon or an equals sign (``queue:jobs``, ``--store=data``), at which bash cuts words; the empty
word in zsh, where an offer of files swallows all names; and names that a shell would expand.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)

__all__ = ["SHELLS"]

_BASH = r"""
%(complete_func)s() {
    local line value as=%%q
    [[ ${COMP_WORDS[COMP_CWORD]} == [\"\']* ]] && as=%%s
    COMPREPLY=()
    while IFS= read -r line; do
        value=${line:1}
        value=${value%%$'\t'*}
        case ${line:0:1} in
            p) COMPREPLY+=("$(printf "$as" "$value")") ;;
            o) COMPREPLY+=("$(printf "$as" "$value")"); compopt -o nospace ;;
            f) compopt -o default ;;
            d) compopt -o dirnames ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS=$COMP_WORDBREAKS \
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = r"""#compdef %(prog_name)s
%(complete_func)s() {
    local line value text
    local -a answer plain open
    answer=("${(@f)$(COMP_WORDS="${words[1,CURRENT-1]} $PREFIX" \
        %(complete_var)s=zsh_complete $words[1] 2>/dev/null)}")
    for line in "${answer[@]}"; do
        value=${${line[2,-1]}%%%%$'\t'*}
        text=${${line[2,-1]}#$value}
        value=${value//:/\\:}${text/$'\t'/:}
        case ${line[1]} in
            p) plain+=("$value") ;;
            o) open+=("$value") ;;
        esac
    done
    (( $#plain )) && _describe -V %(prog_name)s plain
    (( $#open )) && _describe -V %(prog_name)s open -S ''
    for line in "${answer[@]}"; do
        [[ $line == [fd]?* ]] && compset -P '*='
        case ${line[1]} in
            f) _files ;;
            d) _files -/ ;;
        esac
    done
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = r"""
function %(complete_func)s
    set -l typed (commandline -cp | string collect)
    for line in (env COMP_WORDS="$typed" %(complete_var)s=fish_complete \
            (commandline -op)[1] 2>/dev/null)
        set -l rest (string sub -s 2 -- $line)
        switch (string sub -l 1 -- $line)
            case p o
                echo $rest
            case f d
                set -l parts (string split -m 1 \t -- $rest)
                for path in (__fish_complete_path $parts[2])
                    echo $parts[1]$path
                end
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Shell(ShellComplete):
    """What the shells have in common."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._option = ""
        """What the word at the cursor begins with, where it is an option with its value."""
        self._incomplete = ""
        """The rest of that word."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words in front of the one at the cursor, and that one as far as it goes."""
        line = os.environ.get("COMP_WORDS", "")
        # A letter behind it tells whether the line ends within a word, quotes and all.
        words = split_arg_string(line + "x")
        incomplete = words.pop()[:-1]
        option, equals, value = incomplete.partition("=")
        if equals and option.startswith("--") and "--" not in words:
            words.append(option)
            self._option, incomplete = option + equals, value
        self._incomplete = incomplete
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:  # type: ignore[type-arg, unused-ignore]
        """A line of the answer."""
        if item.type in ("file", "dir"):
            return f"{item.type[0]}{self._option}\t{self._incomplete}"
        kind = "o" if item.value.endswith("=") else "p"
        text = f"\t{' '.join(item.help.split())}" if item.help else ""
        return f"{kind}{self._shown(self._option + str(item.value))}{text}"

    def _shown(self, word: str) -> str:
        """What of the whole word the shell is to be told."""
        return word


class _Bash(_Shell):
    """Words are cut at the characters of ``COMP_WORDBREAKS``, and only the last piece replaced."""

    name = "bash"
    source_template = _BASH

    def _shown(self, word: str) -> str:
        line = os.environ.get("COMP_WORDS", "")
        begun = self._option + self._incomplete
        ahead = line.removesuffix(begun)
        if (begun and ahead == line) or ahead.endswith(('"', "'")):  # quoted: it is one piece then
            return word
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        return word[max((begun.rfind(one) for one in breaks), default=-1) + 1 :]


class _Zsh(_Shell):
    name = "zsh"
    source_template = _ZSH


class _Fish(_Shell):
    name = "fish"
    source_template = _FISH


SHELLS = {one.name: one for one in (_Bash, _Zsh, _Fish)}
"""The shells, by their names."""
for _shell in SHELLS.values():
    add_completion_class(_shell)
