"""Kills, damages, shares and moves stores of token-level activations, and expects the same store or the fault by name."""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from emis_interp.errors import DataError, ModelError, StageError
from emis_interp.models.chat import EncodedChat, encode_chats
from emis_interp.models.chat_model import ChatModel
from emis_interp.models.loading import load_model
from emis_interp.passes.capture import (
    OutputEdit,
    capture_batches,
    capture_residuals,
    capture_response_tokens,
    keep_tokens,
)
from emis_interp.passes.token_store import TokenStore
from emis_interp.passes.token_writer import TokenRequest, evenly_spaced, plan, write_tokens

ROOT = Path(__file__).resolve().parents[3]
REQUEST = TokenRequest(layers=(0, 1), shard_mib=0.01, max_batch_tokens=200)


def chats_of(chat_model: ChatModel, n: int = 12) -> list[EncodedChat]:
    texts = [(f"Why {i}?", "so it is " * (1 + i % 5) + str(i)) for i in range(n)]
    return encode_chats(chat_model.tokenizer, texts)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def store(tiny: ChatModel, tmp_path: Path) -> Path:
    write_tokens(tmp_path / "store", tiny, chats_of(tiny), request=REQUEST)
    return tmp_path / "store"


def test_a_store_gives_back_every_token_of_every_text(tiny: ChatModel, store: Path) -> None:
    chats, opened = chats_of(tiny), TokenStore(store)
    assert len(opened) == 12
    assert len(opened.card["shards"]) > 3
    for layer in (0, 1):
        direct = capture_response_tokens(tiny, chats, layer)
        for i, (text, values) in enumerate(opened.layer(layer)):
            assert text == i
            torch.testing.assert_close(values, direct[i], rtol=1e-5, atol=1e-5)
            assert torch.equal(opened.text(i, [layer])[0], values)
    for i, chat in enumerate(chats):
        ids, positions = opened.tokens(i)
        assert positions == list(range(chat.response_start, chat.response_end))
        assert ids == [chat.input_ids[k] for k in positions]
        assert opened.text(i).shape == (2, len(ids), 32)
    assert opened.card["n_tokens"] == sum(chat.response_end - chat.response_start for chat in chats)


def test_other_hook_points_positions_and_dtypes_are_what_the_card_says(tiny: ChatModel, tmp_path: Path) -> None:
    request = TokenRequest((1,), "attn_out", "all_tokens", dtype="bfloat16")
    chats = chats_of(tiny)
    card = write_tokens(tmp_path, tiny, chats, request=request)
    opened = TokenStore(tmp_path)
    assert (card["hook_point"], card["position"], card["dtype"], card["compute_dtype"]) == (
        "attn_out",
        "all_tokens",
        "bfloat16",
        "float32",
    )
    mean = opened.text(3)[0].float().mean(0)
    expected = capture_residuals(tiny, chats, [1], position="all_tokens", hook_point="attn_out")[3, 0]
    torch.testing.assert_close(mean, expected, rtol=2e-2, atol=1e-2)
    assert opened.text(3).dtype == torch.bfloat16
    assert opened.tokens(3)[0] == list(chats[3].input_ids)


def test_one_writer_and_three_make_the_same_store_byte_for_byte(tiny: ChatModel, store: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for worker in (2, 0):
        write_tokens(shared, tiny, chats_of(tiny), request=REQUEST, worker=worker, n_workers=3)
    with pytest.raises(DataError, match=r"shards are not written yet \(shard-00001.safetensors is the first\)"):
        TokenStore(shared)
    write_tokens(shared, tiny, chats_of(tiny), request=REQUEST, worker=1, n_workers=3)
    assert contents(shared) == contents(store)


def test_a_writer_that_dies_between_files_is_continued_to_the_same_bytes(
    tiny: ChatModel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every one of its writes in turn."""
    chats, whole = chats_of(tiny), contents(store)
    from emis_interp.files import store as files
    from emis_interp.files import tensors

    real, n_files = files.write_bytes, len(whole)
    n_dead = 2**22 + 1  # above the largest number of a process
    for n_before in range(n_files):
        folder = tmp_path / str(n_before)
        done: list[Path] = []

        def dying(path: Path, content: bytes, done: list[Path] = done, limit: int = n_before) -> None:
            if len(done) == limit:
                (path.parent / f".{path.name}.{n_dead}-0123abcd.part").write_bytes(content[: len(content) // 2])
                raise KeyboardInterrupt
            real(path, content)
            done.append(path)

        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(files, "write_bytes", dying)
            patch.setattr(tensors, "write_bytes", dying)
            with pytest.raises(KeyboardInterrupt):
                write_tokens(folder, tiny, chats, request=REQUEST)
        write_tokens(folder, tiny, chats, request=REQUEST)
        assert {name: one for name, one in contents(folder).items() if not name.startswith("..card")} == whole


def test_a_damaged_shard_is_named_when_read_checked_or_continued(tiny: ChatModel, store: Path) -> None:
    path = store / "shard-00001.safetensors"
    content = path.read_bytes()
    text = TokenStore(store).card["shards"][1][0]
    for broken in (content[:-3], content[:-1] + bytes([content[-1] ^ 1]), b"", content + b"x"):
        path.write_bytes(broken)
        opened = TokenStore(store)
        assert len(opened.text(0)) == 2  # of another shard
        for read in (
            lambda opened=opened: opened.text(text),
            lambda opened=opened: list(opened.layer(0)),
            opened.verify,
            lambda: write_tokens(store, tiny, chats_of(tiny), request=REQUEST),
        ):
            with pytest.raises(DataError, match=r"shard-00001\.safetensors: content does not match the checksum"):
                read()
    path.unlink()
    with pytest.raises(DataError, match=r"shard-00001\.safetensors: no such file, though shard-00001\.json exists"):
        TokenStore(store)


def test_deleting_a_damaged_shard_and_writing_again_mends_the_store(tiny: ChatModel, store: Path) -> None:
    whole = contents(store)
    for name in ("shard-00001.safetensors", "shard-00001.json"):
        (store / name).unlink()
    write_tokens(store, tiny, chats_of(tiny), request=REQUEST)
    assert contents(store) == whole


def test_a_shard_of_another_store_is_named(tiny: ChatModel, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_tokens(other, tiny, chats_of(tiny), request=replace(REQUEST, hook_point="mlp_out"))
    for name in ("shard-00001.safetensors", "shard-00001.json"):
        (store / name).write_bytes((other / name).read_bytes())
    with pytest.raises(DataError, match=r"shard-00001\.json: belongs to a store of other inputs"):
        TokenStore(store)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"layers": (0,)}, "layers"),
        ({"hook_point": "resid_pre"}, "hook_point"),
        ({"position": "all_tokens"}, "position"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"intervention": "steered"}, "intervention"),
    ],
)
def test_a_store_of_other_inputs_is_not_continued(tiny: ChatModel, store: Path, change: Any, key: str) -> None:
    whole = contents(store)
    with pytest.raises(StageError, match=rf"holds a store with other settings \(.*{key}: "):
        write_tokens(store, tiny, chats_of(tiny), request=replace(REQUEST, **change))
    assert contents(store) == whole


def test_other_texts_and_retrained_weights_of_the_same_name_are_not_mixed_in(tiny: ChatModel, store: Path) -> None:
    with pytest.raises(StageError, match="texts_sha256: "):
        write_tokens(store, tiny, chats_of(tiny, 13)[1:], request=REQUEST)
    retrained = load_model("tiny", device="cpu")
    retrained.layers[1].get_submodule("mlp.down_proj").weight.data += 0.01  # pyright: ignore
    with pytest.raises(StageError, match="weights_sha256: "):
        write_tokens(store, retrained, chats_of(tiny), request=REQUEST)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 28311552, 2**33 + 1])
def test_the_values_that_are_hashed_span_a_parameter_of_any_size(n: int) -> None:
    indices = evenly_spaced(n).tolist()
    assert len(set(indices)) == min(n, 64)
    assert (min(indices), max(indices)) == (0, n - 1)


def test_a_store_that_would_be_too_large_is_refused_with_its_size_before_anything_runs(
    tiny: ChatModel, tmp_path: Path
) -> None:
    chats = chats_of(tiny)
    n = sum(chat.response_end - chat.response_start for chat in chats)
    gib = n * (2 * 32 * 4 + 8) / 1024**3
    assert plan(tiny, chats, replace(REQUEST, max_gib=gib))["gib"] == pytest.approx(gib)
    with pytest.raises(DataError, match=rf"GiB needed \({n} tokens x 2 layers x 32 x 4 bytes\).*raise --max-gib"):
        write_tokens(tmp_path / "x", tiny, chats, request=replace(REQUEST, max_gib=gib * 0.999))
    assert not (tmp_path / "x").exists()
    written = write_tokens(tmp_path / "x", tiny, chats, request=REQUEST)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "x").glob("*.safetensors"))
    assert 0 <= on_disk - written["gib"] * 1024**3 < 1000 * len(written["shards"])  # headers only


def test_an_edited_model_needs_a_name_for_its_edit(tiny: ChatModel, tmp_path: Path) -> None:
    handle = tiny.layers[0].register_forward_hook(OutputEdit(lambda residual: 2 * residual))
    try:
        with pytest.raises(StageError, match="say which in `intervention`"):
            write_tokens(tmp_path, tiny, chats_of(tiny), request=REQUEST)
        named = replace(REQUEST, intervention="doubled at layer 0")
        assert write_tokens(tmp_path, tiny, chats_of(tiny), request=named)["intervention"] == "doubled at layer 0"
    finally:
        handle.remove()


def test_numbers_that_the_stored_dtype_cannot_hold_are_refused_with_the_text(tiny: ChatModel, tmp_path: Path) -> None:
    handle = tiny.layers[1].register_forward_hook(OutputEdit(lambda residual: 1e6 * residual))
    try:
        with pytest.raises(DataError, match=r"text \d+, layer_1: a residual is not finite in float16"):
            write_tokens(
                tmp_path, tiny, chats_of(tiny), request=replace(REQUEST, dtype="float16", intervention="scaled")
            )
    finally:
        handle.remove()
    assert list(tmp_path.glob("shard*")) == []


def test_wrong_requests_are_refused_in_words(tiny: ChatModel, store: Path, tmp_path: Path) -> None:
    chats = chats_of(tiny)
    for change, error, words in (
        ({"layers": ()}, DataError, "no layers to store"),
        ({"layers": (2,)}, ModelError, "layer 2 asked for"),
        ({"hook_point": "resid"}, ModelError, "unknown hook point `resid`"),
        ({"position": "response"}, DataError, "unknown position `response`"),
        ({"dtype": "float8"}, ModelError, "unknown dtype `float8`"),
    ):
        with pytest.raises(error, match=words):
            write_tokens(tmp_path / "none", tiny, chats, request=replace(REQUEST, **change))
    offloaded = ChatModel(copy.deepcopy(tiny.model).to("meta"), tiny.tokenizer, "tiny")
    with pytest.raises(ModelError, match="its weights are offloaded"):
        write_tokens(tmp_path / "none", offloaded, chats, request=REQUEST)
    with pytest.raises(StageError, match="worker 2 of 2"):
        write_tokens(tmp_path / "none", tiny, chats, request=REQUEST, worker=2, n_workers=2)
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match="text 12 asked for, the store has 12"):
        TokenStore(store).text(12)
    with pytest.raises(DataError, match="layer 7 is not stored; it holds 0, 1"):
        TokenStore(store).text(0, [7])


def test_reading_one_text_touches_one_shard(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from emis_interp.passes import token_store

    hashed: list[str] = []
    real = token_store.file_sha256
    monkeypatch.setattr(token_store, "file_sha256", lambda path: hashed.append(path.name) or real(path))
    opened = TokenStore(store)
    assert hashed == []
    opened.text(0)
    opened.text(0)
    assert hashed == ["shard-00000.safetensors"]


def test_what_is_kept_of_a_batch_comes_text_after_text(tiny: ChatModel) -> None:
    chats = chats_of(tiny)
    for rows, counts, [picked] in capture_batches(
        tiny, chats, [0], position="all_tokens", reduce_for=lambda _: keep_tokens, max_batch_tokens=300
    ):
        assert counts == [len(chats[i]) for i in rows]
        assert picked.shape == (sum(counts), 32)
