"""What the README and the docs say can be done is done here: code, requests, targets, links."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from sizewright_client.cli.exit_codes import ExitCode
from sizewright_server.settings import ServerSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_job_of_the_readme_fits_and_is_exported(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    job = tmp_path / "job.yaml"
    job.write_text(text, encoding="utf-8")

    for words in (["recommend", "--advise"], ["export", "--to", "skypilot"], ["estimate"]):
        command = [sys.executable, "-m", "sizewright_client", words[0], str(job), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == ExitCode.OK, done.stderr


def ageless(text: str) -> list[str]:
    """Lines without the age of a price, which grows by the day."""
    return [
        " ".join(re.sub(r"\d+ (d|days) old", "old", line).split()) for line in text.splitlines()
    ]


def test_the_answer_that_the_readme_shows_is_what_the_command_prints() -> None:
    (shown,) = [text for text in blocks(ROOT / "README.md", "text") if "The cheapest plans" in text]
    words = ["recommend", str(ROOT / "examples" / "llama3-8b-sft.yaml"), "--top", "2", "--no-local"]

    done = subprocess.run(
        [sys.executable, "-m", "sizewright_client", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1"},
    )

    printed = ageless(done.stdout)
    assert [line for line in ageless(shown) if line != "…" and line not in printed] == []


def test_the_answers_to_the_twenty_questions_name_every_file() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")

    files = sorted(file.name for file in (ROOT / "examples" / "questions").glob("*.yaml"))
    assert len(files) == 20
    assert [name for name in files if f"(questions/{name})" not in text] == []


def test_the_python_of_the_readme_runs_and_prints_three_plans() -> None:
    (code,) = blocks(ROOT / "README.md", "python")

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )

    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(
        re.fullmatch(r"providers/\S+: \d nodes, \$\d+\.\d\d an hour", line) for line in lines
    )


def test_the_json_of_the_readme_is_answered_to_whoever_asks_by_reflection(
    channel: grpc.Channel,
) -> None:
    (text,) = blocks(ROOT / "README.md", "json")
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("sizewright.v1.SizingService").FindMethodByName("Recommend")
    request = json_format.Parse(text, GetMessageClass(method.input_type)())
    call = channel.unary_unary(  # type: ignore[var-annotated]
        "/sizewright.v1.SizingService/Recommend",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )

    answer = json_format.MessageToDict(call(request))

    first = answer["recommendations"][0]
    assert len(answer["recommendations"]) == 3
    assert int(first["costPerHourNanosUsd"]) > 0
    assert first["costPerHourNanosUsd"].isdecimal()
    assert first["estimate"]["pools"][0]["peak"]["bestBytes"].isdecimal()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_make_target_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for target in re.findall(r"[`$] ?make ([a-z-]+)\b", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_page_of_the_docs_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert [page.name for page in PAGES[1:] if f"(docs/{page.name}" not in text] == []


def test_the_exit_codes_of_the_docs_are_those_of_the_command() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(int(code)) for code in ExitCode]


def test_the_defaults_of_the_docs_are_those_of_the_server() -> None:
    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    settings = ServerSettings()

    for option, value in (
        ("default-deadline-seconds", f"{settings.default_deadline_seconds:g}"),
        ("max-deadline-seconds", f"{settings.max_deadline_seconds:g}"),
        ("max-concurrency", str(settings.max_concurrency)),
        ("max-message-bytes", f"{settings.max_message_bytes // 2**20} MiB"),
    ):
        assert f"`--{option}` {value} |" in text
