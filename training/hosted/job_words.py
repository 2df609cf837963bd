"""Turns a job into figures and words: what came of it, and what to do next."""

from pathlib import Path
from typing import Any

from training.hosted.job_folder import JobRecord, follow_command
from training.hosted.openai_data import training_cost


def told(folder: Path, record: JobRecord) -> dict[str, Any]:
    """A job as figures; `usd` is None when the price or the billed tokens are unknown."""
    tokens = record.trained_tokens
    return {
        "folder": str(folder),
        "status": record.status,
        "job_id": record.job_id,
        "file_id": record.file_id,
        "adopted": record.adopted,
        "base_model": record.request.model,
        "model": record.model,
        "checkpoints": [checkpoint.model_dump() for checkpoint in record.checkpoints],
        "settings": record.settings,
        "error": record.error,
        "trained_tokens": tokens,
        "usd": None if tokens is None else training_cost(tokens, record.price),
    }


def say(result: dict[str, Any]) -> str:
    """A job in a few lines, ending with what to do next."""
    name, folder = result["job_id"] or "no job yet", result["folder"]
    found = " (found at the server, not created again)" if result["adopted"] else ""
    lines = [f"{folder}: {name}, {result['status']}{found}"]
    if result["settings"]:
        lines.append("  " + ", ".join(f"{key} {value:g}" for key, value in sorted(result["settings"].items())))
    if result["trained_tokens"] is not None:
        price = "price unknown" if result["usd"] is None else f"{result['usd']:.2f} USD"
        lines.append(f"  {result['trained_tokens']:,} tokens billed, {price}")
    for checkpoint in result["checkpoints"]:
        loss = checkpoint["metrics"].get("train_loss")
        lines.append(
            f"  checkpoint {checkpoint['step']}: {checkpoint['model']}" + (f" (loss {loss:.3f})" if loss else "")
        )
    if result["status"] == "succeeded":
        lines.append(f"  model {result['model']}")
        lines.append(f"next: python scripts/evaluate.py sample --job {folder} --out ANSWERS.jsonl")
    elif result["status"] == "failed":
        lines.append(f"  {result['error']}")
        lines.append("mend it and start again in another folder; the events are in events.jsonl")
    elif result["status"] == "paused":
        lines.append(f"resume it in the service's dashboard, then: {follow_command(Path(folder))}")
    elif result["status"] != "cancelled":
        lines.append(f"next: {follow_command(Path(folder))}")
    return "\n".join(lines)
