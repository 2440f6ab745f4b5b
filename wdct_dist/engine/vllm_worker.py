"""What vLLM's workers do for a swap: load other weights into the live model, and say whether it computes with them, or with an adapter.

vLLM mixes `SwapWorker` into its own worker class, in whatever process that runs; arguments and results are plain, so that they travel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm.platforms import current_platform

from wdct_dist.checkpoints.weights import weight_files
from wdct_dist.engine import vllm_adapters, vllm_canary
from wdct_dist.engine.vllm_staged import can_stage, staged_tensors

if current_platform.is_cpu():
    # they register themselves in this process
    import wdct_dist.engine.vllm_cpu_attention
    import wdct_dist.engine.vllm_cpu_kernels  # noqa: F401


class SwapWorker:
    """Methods for `collective_rpc`. Beside vLLM's own, so their names begin with wdct."""

    def wdct_untraced(self, directory: str) -> list[str]:
        """Tensors of the checkpoint, and layers of the model, that the canary could not compare."""
        model = self.get_model()  # type: ignore[attr-defined]
        return vllm_canary.trace(model, vllm_canary.Files(Path(directory))).untraced

    def wdct_swap_weights(self, directory: str, staged: bool = True) -> list[str]:
        """Loads the checkpoint's weights into the live model. Returns parameters that moved in memory, where graphs would miss them.

        `staged`: on a GPU they come through page-locked memory, else as vLLM reads them.
        """
        model = self.get_model()  # type: ignore[attr-defined]
        before = _addresses(model)
        device = next(model.parameters()).device
        files = weight_files(Path(directory))
        if staged and device.type == "cuda" and can_stage(files):
            self.reload_weights(weights_iterator=staged_tensors(files, device))  # type: ignore[attr-defined]
        else:
            self.reload_weights(weights_path=directory)  # type: ignore[attr-defined]
        renew_output_layer(model)
        after = _addresses(model)
        return sorted(name for name in before if after.get(name) != before[name])

    def wdct_compare(self, directory: str, previous: str) -> dict[str, Any]:
        """Compares what the live model computes with the checkpoint's files; `previous` is the checkpoint that it had before."""
        model = self.get_model()  # type: ignore[attr-defined]
        found = vllm_canary.compare(model, vllm_canary.Files(Path(directory)), vllm_canary.Files(Path(previous)))
        return {"num_tensors": found.num_tensors, "num_told_apart": found.num_told_apart, "wrong": found.wrong}

    def wdct_prove_start(self, directory: str) -> dict[str, Any]:
        """Compare what the model computes, which has just been loaded, with the checkpoint's files. See `vllm_canary.StartProof`."""
        model = self.get_model()  # type: ignore[attr-defined]
        try:
            proof = vllm_canary.prove_start(model, vllm_canary.Files(Path(directory)))
        except Exception as error:  # of a layer that the canary does not know: the engine may well be sound
            return {"num_tensors": 0, "not_proven": [f"all of it ({type(error).__name__}: {error})"], "faults": []}
        return {"num_tensors": proof.num_tensors, "not_proven": proof.not_proven, "faults": proof.faults}

    def wdct_compare_adapter(self, directory: str, number: int) -> dict[str, Any]:
        """Compares what is kept for an adapter with its files."""
        manager = self.model_runner.lora_manager._adapter_manager  # type: ignore[attr-defined]
        return vllm_adapters.compare(manager, Path(directory), number)


def renew_output_layer(model: Any) -> None:
    """Gives an output layer that shares its weights with the embedding the copy of them that the embedding was packed with.

    On a CPU vLLM packs a copy for each of the two. No tensor of the checkpoint bears such an output layer's name, so `reload_weights`
    leaves it with the old copy (seen with 0.32: 24 of 50 decisions wrong, in silence).
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    for head in heads:
        for other in model.modules():
            if vllm_canary.is_tied(head, other) and hasattr(other, "cpu_linear"):
                head.cpu_linear = other.cpu_linear


def _addresses(model: Any) -> dict[str, int]:
    """Where each parameter's memory begins; parameters that vLLM has packed away have none."""
    return {name: parameter.data_ptr() for name, parameter in model.named_parameters() if parameter.numel()}
