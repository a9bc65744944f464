"""VideoMiraiPipeline: rollout as a diffusers pipeline."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from huggingface_hub import snapshot_download
from torch import Tensor

from video_mirai.export_folder import ASSET_PREFIX, PIPELINE_FILE, find_export
from video_mirai.models.causal_dit import CausalVideoDiT
from video_mirai.models.codecs import Codec
from video_mirai.ops.attention import check_backend
from video_mirai.pipeline_inputs import (
    ChangingContext,
    Frames,
    Videos,
    check_output_type,
    checked_context,
    checked_generators,
    in_form,
    pixels_of,
    replaced_chunk,
    settings_from,
)
from video_mirai.sampling.rollout import RolloutSettings, rollout
from video_mirai.sampling.state import Generators, RolloutState

Callback = Callable[["VideoMiraiPipeline", int, int, dict[str, Any]], dict[str, Any]]  # or one of diffusers' classes

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


@dataclass
class VideoMiraiPipelineOutput(BaseOutput):
    """frames: what was generated, without the history, in the form that `output_type` names.

    "pil": a list of images per video; "np": (B, T, H, W, 3) in [0, 1]; "pt": (B, T, 3, H, W) in [0, 1];
    "latent": (B, F, C, h, w), normalised, as the transformer gives them.
    """

    frames: Frames


class VideoMiraiPipeline(DiffusionPipeline):
    """Continues videos chunk by chunk, or starts them, with a causal transformer and its cache.

    Args:
        rollout: fields of RolloutSettings: how to generate where a call does not say otherwise.
        clips: height, width (pixels) and fps of the videos that the transformer was trained on.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "context"]

    def __init__(
        self,
        transformer: CausalVideoDiT,
        codec: Codec,
        rollout: dict[str, Any] | None = None,
        clips: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # diffusers takes every argument without a default for a part with a folder of its own.
        if rollout is None or clips is None or not {"height", "width", "fps"} <= clips.keys():
            raise ValueError(f"give rollout settings and clips of a height, width and fps; got {rollout}, {clips}.")
        settings_from(rollout)
        self.register_modules(transformer=transformer, codec=codec)
        self.register_to_config(rollout=dict(rollout), clips=dict(clips))
        self.height, self.width, self.fps = int(clips["height"]), int(clips["width"]), float(clips["fps"])
        self._interrupt = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "VideoMiraiPipeline":
        """An export, the run that it is of, `asset:<name>`, or a repository of the Hub.

        Args:
            options: DiffusionPipeline.from_pretrained's, such as torch_dtype.

        Raises:
            FileNotFoundError: the folder has no export, or one without a model_index.json.
        """
        path = pretrained_model_name_or_path
        if not Path(path).is_dir() and not str(path).startswith(ASSET_PREFIX):
            return super().from_pretrained(str(path), **options)
        folder = find_export(path)
        if not (folder / PIPELINE_FILE).is_file():
            raise FileNotFoundError(
                f"{folder} has no {PIPELINE_FILE}: it is a bidirectional teacher's, or older than the pipeline; then "
                f"build.load_pipeline opens it, and what that saves has one."
            )
        return super().from_pretrained(str(folder), **options)

    @classmethod
    def download(cls, pretrained_model_name: str, **options: Any) -> str:
        """All files of a repository; diffusers' own refuses parts of other libraries and leaves some files out."""
        return snapshot_download(
            pretrained_model_name, **{name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}
        )

    @property
    def settings(self) -> RolloutSettings:
        """How to generate where a call does not say otherwise."""
        return settings_from(self.config.rollout)

    @property
    def interrupt(self) -> bool:
        """Whether generation is to end after the present chunk; a callback sets `_interrupt`, as in diffusers."""
        return self._interrupt

    def __call__(
        self,
        history: Videos | None = None,
        *,
        num_frames: int,
        history_latents: Tensor | None = None,
        context: Tensor | None = None,
        null_context: Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        settings: RolloutSettings | None = None,
        seed: int | None = None,
        generator: Generators | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_chunk_end: Callback | None = None,
        callback_on_chunk_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VideoMiraiPipelineOutput | tuple[Frames]:
        """Generate `num_frames` frames; the arguments that `stream` has too are explained there.

        Args:
            num_frames: in pixel frames, besides the history.
            return_dict: False gives a tuple of the frames alone.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames} must be at least 1.")
        settings = self._chosen(settings, num_inference_steps, guidance_scale)
        request = self._request(history, history_latents, context, null_context, settings, generator, seed)
        request = request.with_output(output_type, callback_on_chunk_end, callback_on_chunk_end_tensor_inputs)
        num_latent_frames = self._latent_frames(request.history.shape[1], num_frames)
        num_chunks = math.ceil(num_latent_frames / request.settings.chunk_frames)
        request.check_frame_contexts(num_chunks)
        parts = []
        with self.progress_bar(total=num_chunks) as bar:
            for part in islice(self._parts(request), num_chunks):
                parts.append(part)
                bar.update()
        wanted = num_latent_frames if output_type == "latent" else num_frames
        frames = in_form(torch.cat(parts, dim=1)[:, :wanted], output_type)
        return VideoMiraiPipelineOutput(frames=frames) if return_dict else (frames,)

    def stream(
        self,
        history: Videos | None = None,
        *,
        history_latents: Tensor | None = None,
        context: Tensor | None = None,
        null_context: Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        settings: RolloutSettings | None = None,
        seed: int | None = None,
        generator: Generators | None = None,
        output_type: str = "pil",
        callback_on_chunk_end: Callback | None = None,
        callback_on_chunk_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Iterator[Frames]:
        """Generate for ever, at the same memory and time a chunk; joined, its frames are those of a call.

        Args:
            history: videos to continue, at the size of the training's: a list of PIL images, (T, H, W, 3) in NumPy or
                (T, 3, H, W) in torch; floats in [0, 1] or uint8; several as a list or with a batch axis in front.
            history_latents: (B, F, C, h, w) in place of `history`. Neither: a start from nothing.
            context: (B, L, D_text) or (B, F, L, D_text), as in `rollout`; what other pipelines call prompt embeddings.
            null_context: of the view without context, where guidance has one; see `rollout`.
            num_inference_steps, guidance_scale: denoising steps of a chunk, and how far to move towards the context
                (guidance.context_scale), in place of the settings' own.
            settings: in place of the pipeline's own, which are those of the training.
            seed: of the first video; the next one has the next. Or
            generator: one, or one per video, on the transformer's device. Neither: torch's global one decides.
            callback_on_chunk_end: called as `callback(pipeline, chunk, latent_frames, tensors)` after each chunk, with
                the number of latent frames generated so far. Returns the dict, where it may have replaced "latents",
                which are then decoded and continued, and "context", from the next chunk on (one per frame: counted
                from there). `pipeline._interrupt = True` ends generation.
            callback_on_chunk_end_tensor_inputs: which of "latents" and "context" it gets.

        Yields:
            the frames of one chunk, in the form that `output_type` names.
        """
        settings = self._chosen(settings, num_inference_steps, guidance_scale)
        request = self._request(history, history_latents, context, null_context, settings, generator, seed)
        request = request.with_output(output_type, callback_on_chunk_end, callback_on_chunk_end_tensor_inputs)
        return (in_form(part, output_type) for part in self._parts(request))

    def _parts(self, request: "_Request") -> Iterator[Tensor]:
        """Chunk after chunk, (B, frames, channels, height, width): decoded into [-1, 1], or latents."""
        chunks = self._chunks(request)
        if request.output_type == "latent":
            yield from chunks
            return
        parts = self.codec.decode_stream(chain([request.history], chunks))
        next(parts)  # the history: a codec may need to have seen it
        yield from parts

    def _chunks(self, request: "_Request") -> Iterator[Tensor]:
        """The chunks of a rollout, and the callback between any two of them."""
        self._interrupt = False
        state, context = RolloutState(), ChangingContext(request.context)
        chunks = rollout(
            self.transformer,
            request.history,
            request.settings,
            request.generator,
            context=None if request.context is None else context,
            null_context=request.null_context,
            state=state,
        )
        for number, chunk in enumerate(chunks):
            if request.callback is not None:
                offered: dict[str, Any] = {"latents": chunk, "context": context.present}
                done = (number + 1) * request.settings.chunk_frames
                answer = request.callback(self, number, done, {name: offered[name] for name in request.tensor_inputs})
                changed = offered | (answer or {})
                if changed["context"] is not context.present:
                    context.replace(self._context(changed["context"], len(chunk)))
                if changed["latents"] is not chunk:
                    assert state.pending is not None, "the newest chunk is yet to enter the cache"
                    chunk = replaced_chunk(changed["latents"], chunk)
                    state.pending = state.pending._replace(latents=chunk)
            yield chunk
            if self._interrupt:
                return

    def _chosen(
        self, settings: RolloutSettings | None, num_steps: int | None, guidance_scale: float | None
    ) -> RolloutSettings:
        chosen = settings if settings is not None else self.settings
        if num_steps is not None:
            chosen = replace(chosen, num_steps=num_steps)
        if guidance_scale is not None:
            chosen = replace(chosen, guidance=replace(chosen.guidance, context_scale=guidance_scale))
        if chosen.num_steps < 1:
            raise ValueError(f"num_inference_steps={chosen.num_steps} must be at least 1.")
        return chosen

    def _request(
        self,
        history: Videos | None,
        history_latents: Tensor | None,
        context: Tensor | None,
        null_context: Tensor | None,
        settings: RolloutSettings,
        generator: Generators | None,
        seed: int | None,
    ) -> "_Request":
        """What to generate, checked before anything is."""
        device = self.transformer.device
        check_backend(self.transformer.config.attention_backend, device, masked=False, backward=False)
        if history is not None and history_latents is not None:
            raise ValueError("give history or history_latents, not both.")
        if history is not None:
            given = self.codec.encode(pixels_of(history, self.height, self.width).to(device))
        elif history_latents is not None:
            given = self._latents(history_latents)
        else:
            rows = len(context) if context is not None else len(generator) if isinstance(generator, Sequence) else 1
            given = torch.zeros(rows, 0, *self._latent_size(), device=device)
        return _Request(
            given,
            self._context(context, len(given)),
            None if null_context is None else null_context.to(device, self.transformer.dtype),
            settings,
            checked_generators(generator, seed, len(given), device),
        )

    def _latents(self, latents: Tensor) -> Tensor:
        size = self._latent_size()
        if latents.ndim != 5 or latents.shape[2:] != size:
            wanted = f"(B, F, {', '.join(map(str, size))})"
            raise ValueError(f"history_latents: expected {wanted}, got {tuple(latents.shape)}.")
        return latents.detach().float().to(self.transformer.device)

    def _latent_size(self) -> tuple[int, int, int]:
        factor = self.codec.spatial_factor
        return self.codec.latent_channels, self.height // factor, self.width // factor

    def _context(self, context: Tensor | None, num_videos: int) -> Tensor | None:
        checked = checked_context(context, self.transformer.config.text_dim, num_videos)
        return None if checked is None else checked.to(self.transformer.device, self.transformer.dtype)

    def _latent_frames(self, history_frames: int, num_frames: int) -> int:
        """Latent frames that decode, after the history's, to at least so many frames."""
        last = self.codec.num_pixel_frames(history_frames) + num_frames
        return math.ceil((last - 1) / self.codec.temporal_factor) + 1 - history_frames


class _Request(NamedTuple):
    """One call, checked."""

    history: Tensor
    context: Tensor | None
    null_context: Tensor | None
    settings: RolloutSettings
    generator: Generators
    output_type: str = "latent"
    callback: Callback | None = None
    tensor_inputs: tuple[str, ...] = ()

    def with_output(self, output_type: str, callback: Callback | None, tensor_inputs: Sequence[str]) -> "_Request":
        """The same, and what is made of its chunks."""
        check_output_type(output_type)
        if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
            tensor_inputs = callback.tensor_inputs
        known = VideoMiraiPipeline._callback_tensor_inputs
        if not set(tensor_inputs) <= set(known):
            raise ValueError(f"callback_on_chunk_end_tensor_inputs={list(tensor_inputs)}; known: {', '.join(known)}.")
        return self._replace(output_type=output_type, callback=callback, tensor_inputs=tuple(tensor_inputs))

    def check_frame_contexts(self, num_chunks: int) -> None:
        """ValueError for too few contexts, where there is one per frame and no callback that may still give more."""
        needed = self.history.shape[1] + num_chunks * self.settings.chunk_frames
        context = self.context
        if context is not None and context.ndim == 4 and self.callback is None and context.shape[1] < needed:
            raise ValueError(
                f"context: given for {context.shape[1]} latent frames, but {needed} are needed, the history's included."
            )
