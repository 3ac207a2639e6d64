"""Plays tasks with ground truth through classic MCP, mcpgate and its rivals, and counts every token a model would read.

    python -m benchmarks.token_savings [--quick] [--only SUITE …] [--rivals NAME …] [--catalogues NAME …]
    python -m benchmarks.token_savings --model NAME --base-url URL [--anthropic] [--max-usd 5]

The report goes to stdout, progress to stderr; `--out FOLDER` gets report.md, plays.json and the charts. Suites, rivals
and catalogs are installed on the first run into MCPGATE_BENCH_DIR, else into the user's cache. Ctrl-C ends a run and
reports what was done. Exit status 1 if a play was not verified or a rival failed.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import anyio

from benchmarks.code_mode.contestants import FASTMCP, TOOLPLANE
from benchmarks.machine import describe_machine
from benchmarks.servers import ServerFailed, cache_folder, install
from benchmarks.signals import end_in_order
from benchmarks.token_savings import catalogs, charts, model
from benchmarks.token_savings.prices import GPT_5, Price
from benchmarks.token_savings.progress import Progress
from benchmarks.token_savings.report import ORACLE, Header, Plays, as_json, markdown
from benchmarks.token_savings.rivals.table import PLAYABLE, RIVALS
from benchmarks.token_savings.run import Plan, run, stratified
from benchmarks.token_savings.stage import Play
from benchmarks.token_savings.suites import SUITES
from benchmarks.token_savings.task import Task

_QUICK_CATALOGUES = ("96", "251", "508")
_QUICK_TASKS = 12
"""Of each suite."""
_PATIENCE_S, _QUICK_PATIENCE_S = 30.0, 2.0
_PACKAGES = {"fastmcp": FASTMCP, "toolplane": TOOLPLANE}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    end_in_order()
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # Some servers greet on stdout; the SDK logs each line.
    began = time.monotonic()
    tasks = _choose_tasks(options)
    chosen, troubles = _load_catalogues(options.catalogues or _default_catalogues(options))
    rivals = [RIVALS[name] for name in options.rivals or (PLAYABLE if options.model else RIVALS)]
    for name in _PACKAGES.keys() & {rival.name for rival in rivals}:
        install(_PACKAGES[name])
    plays: list[Play] = []
    with tempfile.TemporaryDirectory(prefix="mcpgate-savings-") as folder:
        plan = Plan(
            tasks,
            rivals,
            chosen,
            options.engine,
            patience_s=_QUICK_PATIENCE_S if options.quick else _PATIENCE_S,
            side_by_side=options.quick,
            folder=Path(folder),
        )
        complete = _play(options, plan, plays, troubles)
    header = Header(
        agent=options.model or ORACLE,
        machine=describe_machine(),
        titles={rival.name: rival.title for rival in rivals},
        catalogues={catalogue.name: (catalogue.size, len(catalogue.servers)) for catalogue in chosen},
        price=_price(options),
        seconds=time.monotonic() - began,
        complete=complete,
        troubles=troubles,
    )
    _write(header, Plays(plays), options.out)
    return 1 if troubles or not complete or any(play.failure for play in plays) else 0


def _play(options: argparse.Namespace, plan: Plan, plays: list[Play], troubles: list[str]) -> bool:
    """Fills `plays` and `troubles`; False if it was interrupted."""
    progress = Progress(plan.plays)
    suites = [SUITES[name] for name in plan.tasks]

    def report(play: Play) -> None:
        plays.append(play)
        progress.step(f"{play.suite}, {RIVALS[play.rival].title}, {play.catalogue}")

    try:
        if options.model:
            trouble = anyio.run(model.run, plan, suites, _endpoint(options), _journal(options), report)
            troubles += [trouble] if trouble else []
        else:
            anyio.run(run, plan, suites, report, troubles.append)
    except KeyboardInterrupt:
        return False
    finally:
        progress.end()
    return True


def _endpoint(options: argparse.Namespace) -> model.Endpoint:
    dialect = model.Anthropic() if options.anthropic else model.OpenAI()
    return model.Endpoint(options.model, options.base_url, dialect, _price(options), options.max_usd)


def _journal(options: argparse.Namespace) -> model.Journal:
    name = "".join(char if char.isalnum() or char in "-." else "_" for char in options.model)
    return model.Journal(cache_folder() / "token_savings" / f"{name}.jsonl")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.token_savings", description="Tokens, requests and money, with checked results."
    )
    parser.add_argument("--quick", action="store_true", help="under three minutes: a sample of tasks, three catalogs")
    parser.add_argument("--only", nargs="+", choices=list(SUITES), metavar="SUITE", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--rivals", nargs="+", choices=list(RIVALS), metavar="NAME", help=f"of {', '.join(RIVALS)}")
    names = list(catalogs.NAMES)
    parser.add_argument("--catalogues", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--tasks", type=int, metavar="N", help="about this many of each suite, every difficulty in proportion"
    )
    parser.add_argument("--engine", choices=("wasm", "restricted"), default="wasm", help="mcpgate's sandbox")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write report.md, plays.json and charts there")
    parser.add_argument("--price-model", default=GPT_5.model, metavar="NAME", help="the model that has these prices")
    parser.add_argument("--price-in", type=Decimal, default=GPT_5.input_usd, metavar="USD", help="per million tokens")
    parser.add_argument("--price-out", type=Decimal, default=GPT_5.output_usd, metavar="USD", help="per million tokens")
    group = parser.add_argument_group("a real model instead of the oracle; its key comes from MODEL_API_KEY")
    group.add_argument(
        "--model", metavar="NAME", help="plays over an OpenAI-compatible endpoint; continues where it stopped"
    )
    group.add_argument("--base-url", metavar="URL", help="e.g. https://api.example.com/v1")
    group.add_argument("--anthropic", action="store_true", help="the endpoint speaks Anthropic's Messages API")
    group.add_argument("--max-usd", type=Decimal, default=Decimal(5), metavar="USD", help="no request starts beyond it")
    options = parser.parse_args(arguments)
    if options.model and not options.base_url:
        parser.error("--model needs --base-url")
    if options.model and set(options.rivals or ()) - PLAYABLE.keys():
        parser.error(f"a model can play {', '.join(PLAYABLE)}; the others do not run live")
    return options


def _default_catalogues(options: argparse.Namespace) -> Sequence[str]:
    if options.model:
        return ("96",)
    return _QUICK_CATALOGUES if options.quick else tuple(catalogs.NAMES)


def _price(options: argparse.Namespace) -> Price:
    return Price(options.price_model, options.price_in, options.price_out)


def _choose_tasks(options: argparse.Namespace) -> Mapping[str, Sequence[Task]]:
    count = options.tasks or (_QUICK_TASKS if options.quick else None)
    chosen = {}
    for name in options.only or SUITES:
        _say(f"tasks of {name}")
        tasks = SUITES[name].tasks()
        chosen[name] = stratified(tasks, count) if count else list(tasks)
    return chosen


def _load_catalogues(names: Sequence[str]) -> tuple[list[catalogs.Catalogue], list[str]]:
    """The catalogs, captured if they were not yet, and the errors on the way."""
    chosen, troubles = [], []
    for name in names:
        _say(f"catalogue {name}")
        failed = catalogs.prepare(name)
        try:
            chosen.append(catalogs.load(name))
        except ServerFailed as error:
            troubles.append(f"catalogue {name}: {error} {'; '.join(failed)}")
    return chosen, troubles


def _write(header: Header, plays: Plays, out: Path | None) -> None:
    text = markdown(header, plays)
    print(text)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(text)
    (out / "plays.json").write_text(json.dumps(as_json(header, plays), indent=1))
    for name, svg in charts.draw(header, plays).items():
        (out / name).write_text(svg)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
