"""Turns the manifests of several runs into the table of what differs: configuration by dotted names, inputs by hash, versions and code."""

from collections.abc import Mapping
from typing import Any

from emis_interp.report.contents import Contents
from emis_interp.report.page_frame import without_machine_paths

NOT_THERE = "–"
Differences = list[tuple[str, list[str]]]
"""(name, its text in every run)."""


def made_otherwise(runs: Mapping[str, Contents]) -> dict[str, Differences]:
    """What differs in how the runs were made: configuration, inputs by hash, versions and code."""
    return {
        "configuration": differing({name: _configured(run) for name, run in runs.items()}),
        "inputs": differing({name: dotted(run.manifest.inputs) for name, run in runs.items()}),
        "versions": differing({name: _versions(run) for name, run in runs.items()}),
    }


def differing(tables: Mapping[str, Mapping[str, str]]) -> Differences:
    """(key, its text in every run) of the keys that are not the same in all; a run without the key has an en dash."""
    tables = _arms_in_one_line(tables)
    keys = dict.fromkeys(key for table in tables.values() for key in table)
    rows = [(key, [table.get(key, NOT_THERE) for table in tables.values()]) for key in keys]
    return [
        (key, _told_apart([without_machine_paths(text) for text in texts]))
        for key, texts in rows
        if len(set(texts)) > 1
    ]


def _told_apart(texts: list[str]) -> list[str]:
    """Texts that differed before paths were shortened, and no longer do, with a number."""
    if len(set(texts)) > 1:
        return texts
    return [f"{text} (folder {i})" for i, text in enumerate(texts, 1)]


def dotted(value: Any, prefix: str = "") -> dict[str, str]:
    """A nested configuration as dotted names with texts; entries of a list that have names stand under them: `arms.reckless.n_rows`."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        value = {str(item["name"]): {key: inner for key, inner in item.items() if key != "name"} for item in value}
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= dotted(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(value, list):
        return {prefix: ", ".join(str(item) for item in value) or "none"}
    return {prefix: "none" if value is None or value == {} else str(value)}


def _arms_in_one_line(tables: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """An arm that only some of the runs have becomes one entry with all of its settings."""
    arms = {
        name: {key.split(".")[1] for key in table if key.count(".") > 1 and key.startswith("arms.")}
        for name, table in tables.items()
    }
    shared = set.intersection(*arms.values()) if arms else set[str]()
    found = {}
    for name, table in tables.items():
        kept = {key: text for key, text in table.items() if not _is_of(key, arms[name] - shared)}
        for arm in sorted(arms[name] - shared):
            settings = (
                f"{key.split('.', 2)[2]} {text}" for key, text in table.items() if _is_of(key, {arm}) and text != "none"
            )
            kept[f"arms.{arm}"] = ", ".join(settings) or "as it is"
        found[name] = kept
    return found


def _is_of(key: str, arms: set[str]) -> bool:
    return any(key.startswith(f"arms.{arm}.") for arm in arms)


def _configured(contents: Contents) -> dict[str, str]:
    config = {key: value for key, value in contents.manifest.config.items() if key not in ("name", "description")}
    return dotted(config)


def _versions(contents: Contents) -> dict[str, str]:
    raw = contents.manifest_raw
    named = {"sources_sha256": raw.get("sources_sha256"), "git": raw.get("git"), "weights": raw.get("weights")}
    machine = {"machine": raw.get("machine"), **{name: value for name, value in named.items() if value is not None}}
    return dotted(contents.manifest.versions) | dotted({name: value for name, value in machine.items() if value})
