"""diffusers' causal video transformers, generating the reference's frames one after another, as their pipelines do.

The pipelines themselves are left out: they need a text encoder and a VAE, and end after a fixed number of frames.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from diffusers import AnyFlowFARTransformer3DModel, SkyReelsV2Transformer3DModel
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Attention, SkyReelsV2AttnProcessor
from torch import Tensor

from benchmarks.reference_frame import Reference
from video_mirai.ops.masks import chunk_causal_mask
from video_mirai.sampling.solvers import euler_step

TIMESTEPS = 1000


class AnyFlowFrames:
    """AnyFlowFARTransformer3DModel with its own KV cache, driven as in AnyFlowFARPipeline.__call__.

    A frame takes its denoising passes beside the cached frames, whose keys each pass rotates again, and then the cache
    pass: the pipeline's encode_kv_cache runs it over all frames that the next one is to see.

    Args:
        full_frames: history frames kept at full resolution; older ones are held in patches twice as high and wide.
    """

    def __init__(self, reference: Reference, full_frames: int, *, compiled: bool) -> None:
        self._reference = reference
        self._frames = reference.history.shape[1]
        self._device = reference.history.device
        torch.manual_seed(0)
        self._model = AnyFlowFARTransformer3DModel(
            **reference.architecture,
            compressed_patch_size=(1, 2 * reference.patch, 2 * reference.patch),
            # Counts the new chunk, and one more in the cache pass.
            full_chunk_limit=full_frames + 1 if full_frames < self._frames else self._frames + 2,
            chunk_partition=(1,) * (self._frames + 1),
        )
        self._model.to(self._device).eval()
        if compiled:
            self._model.compile_repeated_blocks()
        self._cache = self._allocate()

    @torch.no_grad()
    def __iter__(self) -> Iterator[Tensor]:
        history, generator = self._reference.history, self._reference.noise()
        self._fill(history)
        while True:
            frame = self._reference.new_frame(generator)
            for sigma, sigma_next in pairwise(self._reference.sigmas):
                frame = euler_step(frame, self._velocity(frame, sigma, sigma_next), sigma, sigma_next)
            history = torch.cat([history, frame], dim=1)[:, 1:]
            self._fill(history)
            yield frame

    def _velocity(self, frame: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        flag = {"num_cached_chunks": self._frames, "is_cache_step": False}
        return self._model(
            hidden_states=frame,
            timestep=TIMESTEPS * sigma.expand(1, 1),
            r_timestep=TIMESTEPS * sigma_next.expand(1, 1),
            encoder_hidden_states=self._reference.context,
            chunk_partition=[1] * (self._frames + 1),
            kv_cache=self._cache,
            kv_cache_flag=flag,
            return_dict=False,
        )[0]

    def _fill(self, history: Tensor) -> None:
        partition = [1] * self._frames
        zeros = torch.zeros(1, self._frames, device=self._device)
        mask = self._model.build_attention_mask(
            chunk_partition=partition,
            height=history.shape[-2],
            width=history.shape[-1],
            device=self._device,
            mode="cache",
        )
        self._model(
            hidden_states=history,
            timestep=zeros,
            r_timestep=zeros,
            encoder_hidden_states=self._reference.context,
            chunk_partition=partition,
            attention_mask=mask,
            kv_cache=self._cache,
            kv_cache_flag={"num_cached_chunks": self._frames, "is_cache_step": True},
            return_dict=False,
        )

    def _allocate(self) -> list[dict[str, Tensor]]:
        """Of the shapes that the pipeline allocates, for every layer."""
        config = self._model.config
        height, width = self._reference.history.shape[-2:]

        def buffer(frames: int, patch: tuple[int, int, int]) -> Tensor:
            tokens = frames * (height // patch[1]) * (width // patch[2])
            shape = (2, 1, config.num_attention_heads, tokens, config.attention_head_dim)
            return torch.zeros(shape, device=self._device)

        compressed = max(0, self._frames + 1 - config.full_chunk_limit + 1)
        return [
            {
                "full_cache": buffer(config.full_chunk_limit, config.patch_size),
                "compressed_cache": buffer(compressed, config.compressed_patch_size),
            }
            for _ in range(config.num_layers)
        ]


class FrameCausal(SkyReelsV2AttnProcessor):
    """Gives self-attention the frame-causal mask that the model builds for larger blocks than one frame only."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self._mask = mask

    def __call__(
        self,
        attn: SkyReelsV2Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """As its parent's; cross-attention has no rotation and stays unmasked."""
        mask = attention_mask if rotary_emb is None else self._mask
        return super().__call__(attn, hidden_states, encoder_hidden_states, mask, rotary_emb)


class SkyReelsFrames:
    """SkyReelsV2Transformer3DModel with diffusion forcing, driven as in its diffusion-forcing pipeline, block by block.

    There is no cache: every denoising pass runs over the whole window and the new frame, history at timestep 0, and a
    frame starts when the one before is clean. Projections are fused.

    Args:
        causal: with the frame-causal mask; else without any, as the model itself runs blocks of one frame.
    """

    def __init__(self, reference: Reference, *, causal: bool, compiled: bool) -> None:
        self._reference = reference
        torch.manual_seed(0)
        self._model = SkyReelsV2Transformer3DModel(**reference.architecture)
        self._model.to(reference.history.device).eval()
        if causal:
            frames, device = reference.history.shape[1] + 1, reference.history.device
            mask = chunk_causal_mask(frames, reference.tokens_per_frame, 1, device=device)
            self._model.set_attn_processor(FrameCausal(mask[None, None]))
        self._model.fuse_qkv_projections()
        if compiled:
            self._model.compile_repeated_blocks()

    @torch.no_grad()
    def __iter__(self) -> Iterator[Tensor]:
        history, generator = self._reference.history, self._reference.noise()
        while True:
            frame = self._reference.new_frame(generator)
            for sigma, sigma_next in pairwise(self._reference.sigmas):
                velocity = self.velocity(torch.cat([history, frame], dim=1), sigma)[:, -1:]
                frame = euler_step(frame, velocity, sigma, sigma_next)
            history = torch.cat([history, frame], dim=1)[:, 1:]
            yield frame

    def velocity(self, frames: Tensor, sigma: Tensor) -> Tensor:
        """Of all frames, (1, F, C, H, W), of which the last has noise level sigma and the others none."""
        timesteps = torch.zeros(1, frames.shape[1], device=frames.device)
        timesteps[:, -1] = TIMESTEPS * sigma
        output = self._model(
            hidden_states=frames.transpose(1, 2),
            timestep=timesteps,
            encoder_hidden_states=self._reference.context,
            enable_diffusion_forcing=True,
            return_dict=False,
        )
        return output[0].transpose(1, 2)
