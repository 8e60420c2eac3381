"""Commands as lists of words: split before references get their values, checked after.

    words = split_command('curl -o ${workflow.input.file} ${workflow.input.url}')
    # ['curl', '-o', '${workflow.input.file}', '${workflow.input.url}']
    argv = check_words(words, [resolve(word) for word in words])

Because the words are cut from the template and never from a value, a value can neither start
another command nor become two arguments. What is left to an attacker are values that the program
itself would take for an option or for another kind of address: `check_words` refuses those.

Pure functions. This module knows where a reference begins and ends, and nothing of its meaning.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from harmonia_actors.components.contract import ActionError

__all__ = [
    "ARGV_BYTES_MAX",
    "COMMAND_CHARS_MAX",
    "WORDS_MAX",
    "WORD_BYTES_MAX",
    "CommandTemplateError",
    "check_template",
    "check_words",
    "split_command",
]

#: Most words of a command.
WORDS_MAX = 10_000
#: Longest command that is written as one text, in characters: splitting it takes its time.
COMMAND_CHARS_MAX = 100_000
#: Longest word, in bytes: Linux takes no longer argument.
WORD_BYTES_MAX = 131_071
#: All words together, in bytes: a quarter of the usual stack limit, less room for the environment.
ARGV_BYTES_MAX = 1_500_000

#: Stand in for references while shlex splits; both are non-characters that no text should hold.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
#: A word as it was written, with its quotes: to tell a quoted `|` from a bare one.
_RAW_WORD = re.compile(r"""(?:[^\s'"\\]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)+""", re.DOTALL)
_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_OPERATOR = re.compile(r"\|[|&]?|&&?|;;?|\d*(?:>>?|<<?<?|>&|<&|>\|).*|&>>?.*|.*[^\\];", re.DOTALL)
_SUBSTITUTION = re.compile(r"\$\(|`")

#: Programs that take an argument as code, and the options that say so.
_CODE_OPTIONS = (
    (re.compile(r"(?:ba|da|z|k|a|c|tc|fi)?sh"), re.compile(r"-[a-zA-Z]*c|--command")),
    (re.compile(r"(?:python|pypy)[\d.]*"), re.compile(r"-[a-zA-Z]*c")),
    (re.compile(r"perl[\d.]*|ruby[\d.]*|lua[\d.]*"), re.compile(r"-[a-zA-Z]*[eE]")),
    (re.compile(r"node|nodejs|deno|bun"), re.compile(r"-e|-p|-pe|--eval|--print")),
    (re.compile(r"php[\d.]*"), re.compile(r"-r")),
)

_URL_PROGRAMS = frozenset({"curl", "wget"})
_URL_SCHEMES = frozenset({"http", "https"})
_SCHEME_WITH_SLASHES = re.compile(r"\s*([^/]*?)://")
_SCHEME_BARE = re.compile(
    r"\s*(file|ftps?|gophers?|dict|ldaps?|imaps?|pop3s?|smtps?|smbs?|scp|sftp|telnet|tftp|rtsp"
    r"|rtmp\w*|mqtts?|wss?|ipfs|ipns):",
    re.IGNORECASE,
)
#: Without a scheme, curl guesses one from the first label of the host.
_GUESSED_SCHEME = re.compile(r"\s*(?:ftp|dict|ldap|imap|smtp|pop3)\.", re.IGNORECASE)
#: curl expands {a,b} and [a-z] in addresses, so they can spell a scheme.
_GLOB_BEFORE_COLON = re.compile(r"[^:/]*[{\[][^/]*:")
_OPTION_PREFIX = re.compile(r"-[A-Za-z]|--[A-Za-z][\w-]*=")


class CommandTemplateError(ValueError):
    """A command template that cannot or must not be run; the message says how to write it."""


def split_command(template: str) -> list[str]:
    """Split a command into words by shlex's rules, with each `${...}` kept whole.

    Quotes around a reference may be there but are not needed. `$${` stays as it is, for whoever
    resolves the words. Raises CommandTemplateError.
    """
    if len(template) > COMMAND_CHARS_MAX:
        raise CommandTemplateError(
            f"the command has {len(template)} characters; at most {COMMAND_CHARS_MAX} are split "
            "into words: write a list of words instead, or pass large values by standard input"
        )
    if not template.strip():
        raise CommandTemplateError("the command is empty")
    if _OPEN in template or _CLOSE in template or "\0" in template:
        raise CommandTemplateError("the command holds characters that no command can have")
    marked, references = _mark_references(template)
    _refuse_shell_syntax(marked, references)
    try:
        split = shlex.split(marked, posix=True)
    except ValueError as error:
        reason = str(error).lower()
        raise CommandTemplateError(
            f"the command cannot be split into words: {reason}; "
            "close the quote, or write a list of words instead"
        ) from None
    words = [_unmark(word, references) for word in split]
    check_template(words)
    return words


def check_template(words: Sequence[str]) -> None:
    """Refuse words that would let a reference choose the program or write code for it.

    For commands that are given as a list; `split_command` has done it. Raises
    CommandTemplateError.
    """
    if not words or not words[0].strip():
        raise CommandTemplateError("the command is empty")
    if len(words) > WORDS_MAX:
        raise CommandTemplateError(f"the command has {len(words)} words; at most {WORDS_MAX}")
    if _has_reference(words[0]):
        raise CommandTemplateError(
            f"the program must be named in the workflow, not by a reference: '{words[0]}'"
        )
    for pattern, options in _CODE_OPTIONS:
        if pattern.fullmatch(_program(words[0])):
            _refuse_references_in_code(words, options)


def check_words(template: Sequence[str], resolved: Sequence[object]) -> list[str]:
    """The argv of a command: words with their values filled in, each checked.

    `template` and `resolved` correspond one to one. Values that are not text become compact JSON.
    Raises ActionError: OPTION_INJECTION, UNSAFE_URL or INVALID_INPUT, none of them retriable.
    """
    if len(template) != len(resolved):
        raise ValueError(f"{len(template)} template words, but {len(resolved)} resolved ones")
    words = [_as_text(value) for value in resolved]
    options_may_follow = True
    program = _program(words[0]) if words else ""
    for written, word in zip(template, words, strict=True):
        _refuse_unpassable(word)
        if _has_reference(written):
            literal = _literal_prefix(written)
            _refuse_option(written, word, literal, program, options_may_follow)
            if program in _URL_PROGRAMS:
                _refuse_foreign_url(written, word, literal)
        elif written == "--":
            options_may_follow = False
    total = sum(len(word.encode()) + 1 for word in words)
    if total > ARGV_BYTES_MAX:
        raise _refused(
            "INVALID_INPUT",
            f"the command's words take {total} bytes, more than {ARGV_BYTES_MAX}; "
            "pass large values by file or standard input",
        )
    return words


def _mark_references(template: str) -> tuple[str, list[str]]:
    """The template with each `${...}` and each `$${` replaced by a numbered mark."""
    found: list[str] = []
    pieces: list[str] = []
    at = 0
    while (start := template.find("${", at)) >= 0:
        escaped = start > at and template[start - 1] == "$"
        end = start + 2 if escaped else _reference_end(template, start)
        begin = start - 1 if escaped else start
        pieces += [template[at:begin], f"{_OPEN}{len(found)}{_CLOSE}"]
        found.append(template[begin:end])
        at = end
    pieces.append(template[at:])
    return "".join(pieces), found


def _reference_end(template: str, start: int) -> int:
    """Position after the `}` that closes the reference; quotes and nesting are respected."""
    depth, quoted, at = 0, False, start + 2
    while at < len(template):
        char = template[at]
        if quoted:
            if char == "\\":
                at += 1
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at + 1
            depth -= 1
        at += 1
    shown = template[start : start + 40]
    raise CommandTemplateError(f"'{shown}' has no closing brace; write $${{ for a literal ${{")


def _unmark(word: str, references: Sequence[str]) -> str:
    """The word with its references back; any other `${` is escaped, for it was quoted together."""
    pieces: list[str] = []
    at = 0
    for match in _MARK.finditer(word):
        literal = word[at : match.start()]
        found = references[int(match.group(1))]
        if literal.endswith("$") and not found.startswith("$$"):
            raise CommandTemplateError(
                "a '$' cannot stand right before a reference; put it into the referenced value"
            )
        pieces += [literal.replace("${", "$${"), found]
        at = match.end()
    pieces.append(word[at:].replace("${", "$${"))
    return "".join(pieces)


def _refuse_shell_syntax(marked: str, references: Sequence[str]) -> None:
    for match in _RAW_WORD.finditer(marked):
        raw = match.group()
        if _OPERATOR.fullmatch(raw) or _SUBSTITUTION.search(_QUOTED.sub(_expanded, raw)):
            shown = _MARK.sub(lambda mark: references[int(mark.group(1))], raw)
            raise CommandTemplateError(
                f"commands run without a shell, which '{shown}' would need: split the command "
                f"into tasks, one program each; if it is meant literally, write '{shown}' in "
                "single quotes"
            )


def _expanded(quoted: re.Match[str]) -> str:
    """Of a quoted piece, what a shell would still look into: double quotes, but no escapes."""
    piece = quoted.group()
    return _ESCAPED.sub("", piece[1:-1]) if piece.startswith('"') else ""


def _refuse_references_in_code(words: Sequence[str], options: re.Pattern[str]) -> None:
    for option, code in itertools.pairwise(words[1:]):
        if options.fullmatch(option) and _has_reference(code):
            raise CommandTemplateError(
                f"'{words[0]} {option}' would run the reference's value as code; pass it as an "
                "argument after the code instead, or by the input `env`"
            )


def _refuse_unpassable(word: str) -> None:
    if "\0" in word:
        raise _refused("INVALID_INPUT", "a command's word holds a NUL character")
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        raise _refused("INVALID_INPUT", "a command's word holds half a surrogate pair") from None
    if size > WORD_BYTES_MAX:
        raise _refused(
            "INVALID_INPUT",
            f"a command's word takes {size} bytes, more than {WORD_BYTES_MAX}; pass large values "
            "by file or standard input",
        )


def _refuse_option(
    written: str, word: str, literal: str, program: str, options_may_follow: bool
) -> None:
    if literal:
        return
    if word.startswith("-") and options_may_follow:
        raise _refused(
            "OPTION_INJECTION",
            f"the value of '{written}' starts with '-', so {program} would take it for an "
            "option; write ./ before a file, or put the word -- before it in the command",
            word=_shown(word),
        )
    if word.startswith("@") and program == "curl":
        raise _refused(
            "OPTION_INJECTION",
            f"the value of '{written}' starts with '@', so curl would read a file of that name",
            word=_shown(word),
        )


def _refuse_foreign_url(written: str, word: str, literal: str) -> None:
    """Of curl and wget: values may be http and https addresses, or no addresses at all."""
    if literal and not _OPTION_PREFIX.fullmatch(literal):
        return
    value = word[len(literal) :]
    with_slashes = _SCHEME_WITH_SLASHES.match(value)
    foreign = (
        (with_slashes is not None and with_slashes.group(1).lower() not in _URL_SCHEMES)
        or _SCHEME_BARE.match(value)
        or _GUESSED_SCHEME.match(value)
        or _GLOB_BEFORE_COLON.match(value)
    )
    if foreign:
        raise _refused(
            "UNSAFE_URL",
            f"the value of '{written}' is not an http or https address",
            word=_shown(word),
        )


def _has_reference(word: str) -> bool:
    return "${" in word.replace("$${", "")


def _literal_prefix(written: str) -> str:
    """The text before the word's first reference, unescaped."""
    at = written.find("${")
    while at > 0 and written[at - 1] == "$":
        at = written.find("${", at + 2)
    return written[:at].replace("$${", "${")


def _program(word: str) -> str:
    return PurePosixPath(word).name


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _shown(word: str) -> str:
    return word if len(word) <= 80 else word[:80] + "…"


def _refused(code: str, message: str, **details: str) -> ActionError:
    return ActionError(message, code=code, details=details, retriable=False)
