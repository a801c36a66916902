"""`script/new-inventory`: what a person types."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from secret_vault.library import add_password_options, vault_library
from secret_vault.vault import VaultError

from new_inventory.questions import QUESTIONS, Question, complete, number
from new_inventory.write import write

INVENTORIES = Path(__file__).resolve().parents[2] / "inventories"


def main() -> int:
    """Ask, or read the answers, and write the inventory; 2: it could not be done, and nothing was written."""
    options = _parser().parse_args()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", options.name) or options.name == "common":
        return _fail(f"{options.name} is no name for an inventory: write lower-case letters, digits, - and _")
    inventories = Path(options.folder)
    folder = inventories / options.name
    if folder.exists():
        return _fail(f"{folder} exists, and is left as it is: choose another name, or remove it yourself")
    try:
        # Nothing that was answered is lost to a password that was mistyped
        library = vault_library(options, new=True)
        answers, faults = complete(_read(options.answers) if options.answers else _ask())
        if faults:
            return _fail(
                f"{len(faults)} answers to mend, nothing was written:\n" + "\n".join(f"  - {f}" for f in faults)
            )
        missing = write(answers, inventories, folder, library)
    except (AnsibleError, VaultError, OSError) as error:
        return _fail(str(error))
    except (EOFError, KeyboardInterrupt):
        return _fail("given up, nothing was written")
    print(f"{folder} is written.")
    for name in missing:
        print(f"Still to give: script/secrets {folder} --set {name}")
    print(f"Next: ansible-playbook -i {folder} --ask-vault-pass playbooks/preflight.yml")
    return 0


def _read(path: str) -> dict[str, Any]:
    try:
        answers = yaml.safe_load(Path(path).read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VaultError(f"{path} is no YAML: {error}") from None
    if not isinstance(answers, dict):
        raise VaultError(f"{path} is no mapping of questions to answers; script/new-inventory --help names them")
    return answers


def _ask() -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for question in QUESTIONS:
        if question.only in ("", answers.get("batch_cluster")):
            answers[question.key] = _one(question)
    return answers


def _one(question: Question) -> Any:
    default = " ".join(question.default) if question.several and question.default else question.default
    hint = f" [{default}]" if default else ""
    while True:
        typed = input(f"{question.text}{' (separated by spaces)' if question.several else ''}{hint}: ").strip()
        answer: Any = (
            typed.split()
            if question.several
            else int(typed)
            if question.check is number and typed.isdecimal()
            else typed
        )
        if not typed and question.default is not None:
            answer = question.default
        wrong = question.fault(answer)
        if not wrong:
            return answer
        print(f"  That {wrong}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/new-inventory",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write inventories/NAME from answers, which are asked for or stand in a YAML file.\n"
        "It is one of the examples, with this site's values and the secrets that can be made.",
        epilog="Questions of an answers file:\n" + "\n".join(f"  {q.key}: {q.text}" for q in QUESTIONS),
    )
    parser.add_argument("name", help="the name of the new inventory; one that exists is never touched")
    parser.add_argument("--answers", metavar="FILE", help="answers instead of questions, a mapping in YAML")
    parser.add_argument("--folder", default=INVENTORIES, help="with common and the examples (%(default)s)")
    add_password_options(parser)
    return parser


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
