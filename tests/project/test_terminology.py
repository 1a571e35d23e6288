"""Fail on words and turns of phrase that a new reader would have to decode.

`python tests/project/test_terminology.py [PATH ...]` lists every violation by file.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

CODE = ("src", "tests", "tools")
PROSE = ("*.md", "docs/**/*.md", "ops/**/*.md", "ops/**/*.yml", "tests/bad_inputs.yaml")
OWN_WORDS = {  # files that must quote the old words, with the reason
    "tests/project/test_terminology.py": "it lists the words",
}


class Rule(NamedTuple):
    """A pattern, what to write instead, and a slip that the pattern must catch."""

    pattern: str
    instead: str
    slip: str


PROSE_RULES = (
    Rule(r"(?i)\bwho(?:so)?ever\b", "name the actor", "Whoever waits gets an answer."),
    Rule(r"(?i)\b(?:no|some|every|any)body\b", "name the actor", "Nobody watches."),
    Rule(r"(?i)\bshall\b", "must, or the present tense", "It shall end."),
    Rule(r"(?i)(?<!there )\b(?:is|are) no\b(?! longer\b)", "is not", "That is no place."),
    Rule(r"(?i)\bnone that\b", "say what is missing", "There are none that match."),
    Rule(r"(?i)\bof (?:above|before|now)\b(?! the\b)", "name it", "The password of above."),
    Rule(r"(?i)\bbe it\b", "whether", "Every answer, be it an error."),
    Rule(r"(?i)\b(?:hear|hears|heard|hearing) (?:of|what|about|that|nothing)\b", "receive", "Workers hear of changes."),
    Rule(r"(?i)\b(?:is|are|was|were|be|been|not) told\b", "notify, report, send", "A watcher is told."),
    Rule(r"(?i)\btells? (?:of|everybody|others|what|which|when)\b", "report, describe", "The log tells of it."),
    Rule(r"(?i)\blet(?:s|ting)? go\b", "release, disconnect", "The watcher is let go."),
    Rule(r"(?i)\b(?:keeps?|kept) hold\b", "retain", "It is kept hold of."),
    Rule(r"(?i)\b(?:comes?|came|coming) to\b(?= (?:at|be)\b|[,.;:]|$)", "result, plan", "What it comes to."),
    Rule(r"(?i)\bwhat (?:came|became|comes) of\b", "outcome", "What became of it."),
    Rule(r"(?i)\bstand(?:s|ing)?[ -]in\b", "serve stale", "The old value stands in."),
    Rule(r"(?i)\bovertaken\b", "superseded", "An overtaken version."),
    Rule(r"(?i)\bunder way\b", "in progress, running", "A save is under way."),
    Rule(r"(?i)\brefusals?\b|\bexpected no\b", "error", "Each refusal has a code."),
    Rule(r"(?i)\bdoors?\b", "HTTP entry point, router", "The door answers it."),
    Rule(r"(?i)\bnews\b", "change feed", "The news came."),
    Rule(r"(?i)\bears?\b", "change feed", "The ear on the log."),
    Rule(r"(?i)\bnudge[ds]?\b", "notification", "A nudge wakes it."),
    Rule(r"(?i)\bchores?\b", "background jobs", "Chores run."),
    Rule(r"(?i)\boutlets?\b|\btall(?:y|ies)\b", "sink workers, histograms", "The outlet writes."),
    Rule(r"(?i)\bseal(?:s|ed|ing)?\b", "encrypt", "The sealed bytes."),
    Rule(r"(?i)\bretir(?:e|es|ed|ing)\b", "delete", "A retired config."),
    Rule(r"(?i)\breveal(?:s|ed|ing)?\b", "secret access", "This is a reveal."),
    Rule(r"(?i)\bledgers?\b", "access statistics", "The usage ledger."),
    Rule(r"(?i)\btypes? in force\b|\bput in force\b", "active", "The type in force."),
    Rule(r"(?i)\btenants?'? keys?\b", "data key", "The tenant key."),
    Rule(r"(?i)\bhorizon\b", "replication-safe watermark", "Below the horizon."),
    Rule(
        r"(?i)\bhouse\b(?! number)|\brooms? (?:beside|of a request)\b", "architecture, package", "The house has rooms."
    ),
    Rule(r"(?i)\bplanted\b", "deliberate fault", "A planted fault."),
    Rule(r"(?i)\bplanners?\b", "plan", "The planner decides."),
    Rule(r"(?i)\bguesses\b", "login throttle", "Guesses are limited."),
    Rule(r"(?i)\bthere is (?:nothing|none) here\b", "not found", "There is nothing here."),
    Rule(r"(?i)\b(?:col|fav|behavi|hon)our\w*|\bauthoris\w+|\bserialis\w+", "American spelling", "The colour."),
)

NAME_WORDS = {
    "refusal": "error",
    "refusals": "errors",
    "door": "router",
    "wanted": "request",
    "asked": "a verb",
    "told": "a verb",
    "heard": "received",
    "hear": "receive",
    "shown": "a verb",
    "tried": "a verb",
    "nudge": "notify",
    "nudged": "notified",
    "news": "change feed",
    "overtaken": "superseded",
    "guesses": "login throttle",
    "sealed": "encrypted",
    "sealing": "encryption",
    "opener": "decryptor",
    "retired": "deleted",
    "retire": "delete",
    "chores": "jobs",
    "outlet": "sink worker",
    "outlets": "sink workers",
    "tallies": "histograms",
    "ledger": "access statistics",
    "horizon": "watermark",
    "planner": "plan",
    "planted": "deliberate fault",
    "house": "architecture",
    "nobody": "name the actor",
    "somebody": "name the actor",
    "whoever": "name the actor",
    "everybody": "name the actor",
    "shall": "must",
}
KEPT_NAMES = {  # whole names that stay, with the reason
    "retired": "a kind of change on the wire and in stored rows",
    "RETIRED": "the constant for that kind",
}


class Violation(NamedTuple):
    """One place that breaks a rule."""

    path: str
    line: int
    found: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found!r}: write {self.instead}"


def without_code(text: str) -> str:
    """Blank what is quoted as code: it is checked where it is written."""
    return re.sub(r"`[^`\n]*`|https?://\S+|\]\([^)]*\)", " ", text)


def check_prose(path: str, line: int, text: str) -> list[Violation]:
    found = []
    for number, part in enumerate(without_code(text).splitlines(), line):
        for rule in PROSE_RULES:
            found += [Violation(path, number, match[0], rule.instead) for match in re.finditer(rule.pattern, part)]
    return found


def check_name(path: str, line: int, name: str) -> list[Violation]:
    if name in KEPT_NAMES:
        return []
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [Violation(path, line, name, NAME_WORDS[word.lower()]) for word in words if word.lower() in NAME_WORDS]


def is_prose(literal: str) -> bool:
    """Return whether a string literal is for people: not one wire word, and not SQL."""
    body = re.sub(r"^[A-Za-z]*(\"\"\"|'''|\"|')", "", literal).strip("\"'").strip()
    return " " in body and not re.match(r"/\*|(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER) ", body)


def check_python(path: str, text: str) -> list[Violation]:
    found: list[Violation] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and is_prose(token.string)):
            found += check_prose(path, line, token.string)
        elif token.type == tokenize.NAME:
            found += check_name(path, line, token.string)
    return found


def check_markdown(path: str, text: str) -> list[Violation]:
    if path == "CHANGELOG.md":
        text = re.split(r"(?m)^## 0\.1\.0", text)[0]  # released entries are history
    if path.startswith("docs/decisions/") and not path.endswith("/README.md"):
        text = text.splitlines()[0]  # bodies of past records stay as they were
    text = re.sub(r"(?ms)^```.*?^```", lambda block: "\n" * block[0].count("\n"), text)
    return check_prose(path, 1, re.sub(r"(?m)^    .*$", "", text))


def check_cases(path: str, text: str) -> list[Violation]:
    """Check the comments and the reasons of a list of test cases. The requests are data."""
    found: list[Violation] = []
    for prose in re.finditer(r"(?m)^(?:#|  why:).*(?:\n {4}.*)*", text):
        found += check_prose(path, 1 + text.count("\n", 0, prose.start()), prose[0])
    return found


def check_file(path: Path) -> list[Violation]:
    name = path.relative_to(ROOT).as_posix()
    if name in OWN_WORDS:
        return []
    checks = {".py": check_python, ".yaml": check_cases}
    check = checks.get(path.suffix, check_markdown)
    return check(name, path.read_text())


def list_checked_files() -> list[Path]:
    code = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    return sorted({*code, *(path for pattern in PROSE for path in ROOT.glob(pattern))})


@pytest.mark.parametrize("rule", PROSE_RULES, ids=lambda rule: rule.slip)
def test_each_rule_catches_a_deliberate_slip(rule: Rule) -> None:
    assert [found for found in check_prose("a.md", 1, rule.slip) if found.instead == rule.instead]


@pytest.mark.parametrize("word", NAME_WORDS)
def test_each_old_word_is_caught_in_a_name(word: str) -> None:
    assert len(check_python("a.py", f"def _{word}_version(): ...\n")) == 1
    assert len(check_python("a.py", f"class Old{word.title()}: ...\n")) == 1


def test_slips_are_found_in_docstrings_comments_and_messages() -> None:
    text = '"""Whoever reads."""\nx = 1  # nobody waits\ny = f"shall {x}"\n'
    assert [found.line for found in check_python("a.py", text)] == [1, 2, 3]


def test_plain_prose_quoted_code_wire_words_and_sql_pass() -> None:
    plain = "There is no such config, and it is no longer read. See `confide_news_age_seconds`."
    assert check_markdown("a.md", f"{plain}\n\n    $ nobody\n") == []
    assert check_python("a.py", 'KINDS = ("saved", "retired", "news-unavailable")\nsql = "SELECT 1 AS news"\n') == []


def test_slips_are_found_in_the_comments_and_reasons_of_test_cases_but_not_in_requests() -> None:
    text = "# Nobody\n- id: a\n  path: /nobody\n  body: {text: nobody}\n  why: whoever\n    shall\n  expect: [400]\n"
    assert [(found.line, found.found) for found in check_cases("a.yaml", text)] == [
        (1, "Nobody"),
        (5, "whoever"),
        (6, "shall"),
    ]


def test_no_file_has_a_violation() -> None:
    assert [str(found) for path in list_checked_files() for found in check_file(path)] == []


def test_a_deliberate_violation_in_a_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "planted.py").write_text('"""Whoever reads this."""\n')
    (tmp_path / "README.md").write_text("Nobody shall wait.\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    found = [violation.found for path in list_checked_files() for violation in check_file(path)]
    assert found == ["Nobody", "shall", "Whoever"]


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    files = [
        path for path in list_checked_files() if not chosen or any(path.is_relative_to(folder) for folder in chosen)
    ]
    violations = [(path, found) for path in files if (found := check_file(path))]
    for path, places in violations:
        print(f"{path.relative_to(ROOT)}: {len(places)}", *places, sep="\n  ")
    sys.exit(bool(violations))
