"""LoRA adapters that peft itself wrote, merged here and by peft."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.node_copy import apart_on_this_node, on_this_node
from wdct_dist.checkpoints.tensor_data import places
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.errors import CheckpointError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft", reason="peft is not installed (the extra `test` brings it)")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

ATTENTION = ["q_proj", "v_proj"]
TOLERANCE = {"float32": 1e-6, "bfloat16": 2**-8}
"""Largest difference from peft's merge, relative to the base's largest weight. peft rounds B·A to the base's precision before it adds it
and once more after; we round once. One step of bfloat16 is 2⁻⁸."""

WriteBase = Callable[..., Path]
WriteAdapter = Callable[..., Path]


@pytest.fixture
def write_base(tmp_path: Path) -> WriteBase:
    """A llama of two layers with random weights (or a GPT-2, whose layers are transposed), with a tokenizer's files."""

    def write(name: str = "base", *, dtype: str = "float32", tied: bool = False, gpt2: bool = False, shard: str = "1GB") -> Path:
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

        torch.manual_seed(1)
        if gpt2:
            model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=32))
        else:
            config = LlamaConfig(
                vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=tied
            )
            model = LlamaForCausalLM(config)
        directory = tmp_path / name
        model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=shard)
        (directory / "tokenizer.json").write_text('{"version": "1.0"}')
        (directory / "tokenizer_config.json").write_text('{"chat_template": "base"}')
        return directory

    return write


@pytest.fixture
def write_adapter(tmp_path: Path) -> WriteAdapter:
    """An adapter over `base`, its Bs random unless `zero`; settings are peft's."""

    def write(base: Path, name: str = "adapter", *, zero: bool = False, scale: float = 0.05, **settings: Any) -> Path:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base)
        settings = {"target_modules": ATTENTION, "r": 4, "lora_alpha": 16, **settings}
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        torch.manual_seed(2)
        for key, parameter in adapted.named_parameters():
            if not zero and ("lora_B" in key or "lora_embedding" in key or "modules_to_save" in key):
                torch.nn.init.normal_(parameter, std=scale)
        adapted.save_pretrained(tmp_path / name)
        return tmp_path / name

    return write


def described(adapter: Path, base: Path | None, name: str = "adapter") -> Checkpoint:
    over = None if base is None else Source("base", str(base))
    return describe(Source(name, str(adapter), base=over), allow_pickle=False, trust_remote_code=False)


def merged(checkpoint: Checkpoint) -> Path:
    with on_this_node(checkpoint, max_gib=None, allow_pickle=False) as lease:
        return lease.directory


def weights_of(directory: Path) -> dict[str, bytes]:
    files = directory.glob("*.safetensors")
    return {name: place.read_bytes() for file in files for name, place in places(file).items()}


def merged_by_peft(base: Path, adapter: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    state: dict[str, Any] = model.state_dict()
    return state


def state_of(directory: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    state: dict[str, Any] = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    return state


@pytest.mark.parametrize(
    ("base_settings", "adapter_settings"),
    [
        ({}, {}),
        ({"dtype": "bfloat16"}, {}),
        ({"tied": True, "shard": "2KB"}, {"target_modules": "all-linear"}),
        ({}, {"use_rslora": True, "lora_alpha": 3}),
        ({}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 1}}),
        ({}, {"target_modules": ["embed_tokens", "q_proj"]}),
        ({}, {"modules_to_save": ["lm_head"]}),
        ({"gpt2": True}, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    ],
    ids=["float32", "bfloat16", "tied and sharded", "rank-stabilised", "ranks and alphas by layer", "embeddings", "whole layers", "GPT-2"],
)
def test_the_merged_model_is_that_of_peft(
    write_base: WriteBase, write_adapter: WriteAdapter, base_settings: dict[str, Any], adapter_settings: dict[str, Any]
) -> None:
    base = write_base(**base_settings)
    adapter = write_adapter(base, **adapter_settings)
    ours, theirs, before = state_of(merged(described(adapter, base))), merged_by_peft(base, adapter), state_of(base)
    assert ours.keys() == theirs.keys()
    changed = {name for name in theirs if not torch.equal(theirs[name], before[name])}
    assert changed
    assert {name for name in ours if not torch.equal(ours[name], before[name])} == changed
    largest = max(before[name].abs().max().item() for name in changed)
    apart = max((ours[name].float() - theirs[name].float()).abs().max().item() for name in changed)
    assert apart <= TOLERANCE[base_settings.get("dtype", "float32")] * largest
    moved = max((before[name].float() - theirs[name].float()).abs().max().item() for name in changed)
    assert moved > 10 * apart, "the adapter does far more than the tolerance lets pass"


def test_exactly_the_adapted_tensors_differ_from_the_base(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base()
    checkpoint = described(write_adapter(base), base)
    before, after = weights_of(base), weights_of(merged(checkpoint))
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {
        f"model.layers.{layer}.self_attn.{module}.weight" for layer in (0, 1) for module in ATTENTION
    }


def test_it_is_described_before_it_is_merged_and_takes_turns_with_its_base(
    write_base: WriteBase, write_adapter: WriteAdapter, cache: Path
) -> None:
    base = write_base()
    adapter = write_adapter(base)
    checkpoint = described(adapter, base)
    plain = describe(Source("base", str(base)), allow_pickle=False, trust_remote_code=False)
    assert not checkpoint.directory.exists()
    assert (checkpoint.kind, checkpoint.signature) == ("adapter", plain.signature)
    assert checkpoint.source == f"{adapter} over {base}"
    assert checkpoint.digest != plain.digest
    assert merged(checkpoint) == checkpoint.directory
    assert describe(Source("x", str(checkpoint.directory)), allow_pickle=False, trust_remote_code=False).signature == plain.signature


def test_without_a_base_it_is_the_one_that_the_adapter_states(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base()
    adapter = write_adapter(base)
    assert described(adapter, None).digest == described(adapter, base).digest


def test_another_base_or_another_adapter_is_another_checkpoint(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base, other = write_base(), write_base("other", dtype="bfloat16")
    adapter = write_adapter(base)
    stronger = write_adapter(base, "stronger", lora_alpha=32)
    assert len({described(one, over).digest for one in (adapter, stronger) for over in (base, other)}) == 4


def test_the_adapters_own_tokenizer_and_chat_template_are_taken(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base()
    adapter = write_adapter(base)
    (adapter / "tokenizer.json").write_text('{"version": "2.0"}')
    (adapter / "chat_template.jinja").write_text("adapter")
    directory = merged(described(adapter, base))
    assert (directory / "tokenizer.json").read_text() == '{"version": "2.0"}'
    assert (directory / "chat_template.jinja").read_text() == "adapter"
    assert not (directory / "tokenizer_config.json").exists(), "the base's template must not mix with the adapter's"


def settings(**changes: Any) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def remove_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()


def cut_short(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (settings(peft_type="LOHA"), "peft_type is 'LOHA'; allowed is LORA"),
        (settings(use_dora=True), "has DoRA, which is not merged here; merge it with peft (`merge_and_unload`)"),
        (settings(bias="all"), "bias is 'all': it also trained the base's biases; allowed is none"),
        (settings(trainable_token_indices=[1]), "has single trained tokens, which is not merged here"),
        (settings(init_lora_weights="pissa_niter_4"), "init_lora_weights is 'pissa_niter_4', which also changes the base's weights"),
        (remove_weights, "an adapter without adapter_model.safetensors"),
        (cut_short, "adapter_model.safetensors: cut short"),
        (lambda adapter: (adapter / "adapter_config.json").write_text("{"), "adapter_config.json: not valid JSON"),
    ],
)
def test_an_adapter_that_cannot_be_merged_exactly_is_refused_by_name_before_anything_is_written(
    write_base: WriteBase, write_adapter: WriteAdapter, damage: Callable[[Path], None], message: str
) -> None:
    base = write_base()
    adapter = write_adapter(base)
    damage(adapter)
    with pytest.raises(CheckpointError) as raised:
        described(adapter, base)
    assert str(raised.value).startswith("checkpoint 'adapter': ")
    assert message in str(raised.value)


def test_an_adapter_that_was_never_trained_is_refused(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base()
    with pytest.raises(CheckpointError, match="changes nothing: every B is zero, as before the first training step"):
        described(write_adapter(base, zero=True), base)


def test_an_adapter_too_small_for_the_precision_of_its_base_is_refused_when_it_is_merged(
    write_base: WriteBase, write_adapter: WriteAdapter
) -> None:
    base = write_base(dtype="bfloat16")
    checkpoint = described(write_adapter(base, scale=1e-12), base)
    with pytest.raises(CheckpointError, match="changes nothing: all of it is smaller than the precision of its base"):
        merged(checkpoint)
    assert not checkpoint.directory.exists()


def test_an_adapter_of_another_model_is_refused(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    adapter = write_adapter(write_base())
    with pytest.raises(CheckpointError, match="which the base does not have; give the base that it was trained on"):
        described(adapter, write_base("other", gpt2=True))


def test_what_a_base_uses_twice_cannot_be_changed_once(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base(tied=True)
    with pytest.raises(CheckpointError, match="which the base also uses as its output layer"):
        described(write_adapter(base, target_modules=["embed_tokens"]), base)


def test_embeddings_that_were_saved_along_have_to_be_those_of_the_base(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    adapter = write_adapter(write_base(), target_modules=["embed_tokens"])
    other = write_base("other", dtype="bfloat16")
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight` .* is not the one of the base; give the base that"):
        described(adapter, other)


def test_an_adapter_that_changes_after_it_was_described_is_not_merged(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base()
    adapter = write_adapter(base)
    checkpoint = described(adapter, base)
    settings(lora_alpha=99)(adapter)
    with pytest.raises(CheckpointError, match="has changed since it was described"):
        merged(checkpoint)


def test_a_base_that_is_not_found_is_asked_for(write_base: WriteBase, write_adapter: WriteAdapter) -> None:
    base = write_base()
    adapter = write_adapter(base)
    settings(base_model_name_or_path="/no/such/base")(adapter)
    with pytest.raises(CheckpointError, match=r"of a base that is not found here: .* Give the base as `base`"):
        described(adapter, None)


def test_a_whole_model_has_no_base(write_base: WriteBase) -> None:
    base = write_base()
    with pytest.raises(CheckpointError, match="is no adapter, so it has no `base`"):
        described(base, base)


@pytest.mark.parametrize(
    ("settings", "rank", "because"),
    [
        ({"r": 4}, 4, None),
        ({"r": 4, "use_rslora": True, "lora_alpha": 3}, 4, None),
        ({"target_modules": [*ATTENTION, "lm_head"]}, 0, "it adapts the output layer"),
        ({"target_modules": [*ATTENTION, "embed_tokens"]}, 0, "it adapts embeddings, or layers that are kept transposed"),
        ({"modules_to_save": ["norm"]}, 0, "it replaces whole tensors (modules_to_save)"),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 2}}, 0, "it has rank_pattern and alpha_pattern"),
        ({"r": 513}, 0, "its rank is 513, allowed are 512"),
    ],
)
def test_an_adapter_that_an_engine_of_its_base_cannot_apply_is_known_from_its_files(
    settings: dict[str, Any], rank: int, because: str | None, write_base: WriteBase, write_adapter: WriteAdapter
) -> None:
    base = write_base()
    found = described(write_adapter(base, **settings), base)
    assert (found.adapter_rank, found.merged_because) == (rank, because)


def test_an_adapter_that_is_not_merged_has_what_its_engine_needs_and_no_weights_of_the_base(
    write_base: WriteBase, write_adapter: WriteAdapter, tmp_path: Path
) -> None:
    base = write_base()
    adapter = write_adapter(base)
    (adapter / "tokenizer.json").write_text('{"version": "1.0"}')
    (adapter / "tokenizer_config.json").write_text('{"chat_template": "adapter"}')
    checkpoint = described(adapter, base)
    with apart_on_this_node(checkpoint, base, max_gib=None, allow_pickle=False) as lease:
        names = {file.name for file in lease.directory.iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json"} <= names
        assert "model.safetensors" not in names
        assert "adapter" in (lease.directory / "tokenizer_config.json").read_text()
        assert lease.directory != checkpoint.directory, "the place of the merged model"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 2}))
    changed = replace(checkpoint, digest="0" * 64)
    with pytest.raises(CheckpointError, match="has changed since it was described"):
        apart_on_this_node(changed, base, max_gib=None, allow_pickle=False)
