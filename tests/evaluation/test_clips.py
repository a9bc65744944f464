import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from video_mirai.evaluation.clips import ClipRule, clip_frame_numbers, take_clips


def starts(num_frames, **options):
    return clip_frame_numbers(num_frames, ClipRule(clip_frames=4, **options))[:, 0].tolist()


def test_sliding_clips_touch_unless_a_stride_is_given_and_first_is_one_clip():
    assert starts(13) == [0, 4, 8]
    assert starts(9, stride_frames=2) == [0, 2, 4]
    assert starts(13, kind="first") == [0]
    assert starts(13, skip_frames=5) == [5, 9]


def test_random_clips_are_different_starts_that_the_seed_and_the_video_decide():
    rule = ClipRule("random", clip_frames=4, per_video=5, seed=3)
    chosen = clip_frame_numbers(40, rule, video_index=1)
    assert len(set(chosen[:, 0].tolist())) == 5
    np.testing.assert_array_equal(chosen, clip_frame_numbers(40, rule, video_index=1))
    assert chosen[:, 0].tolist() != clip_frame_numbers(40, rule, video_index=2)[:, 0].tolist()
    assert len(clip_frame_numbers(5, rule)) == 2


def test_rate_takes_the_nearest_frame_in_time():
    rule = ClipRule("first", clip_frames=4, fps=10)
    assert clip_frame_numbers(30, rule, video_fps=25).tolist() == [[0, 3, 5, 8]]
    assert clip_frame_numbers(30, rule, video_fps=10).tolist() == [[0, 1, 2, 3]]
    assert clip_frame_numbers(30, ClipRule("first", 3, fps=24), video_fps=23.976).tolist() == [[0, 1, 2]]
    assert clip_frame_numbers(30, ClipRule("first", 3, frame_step=4)).tolist() == [[0, 4, 8]]


@given(
    num_frames=st.integers(1, 200),
    clip=st.integers(1, 20),
    rate=st.floats(1, 30),
    step=st.integers(1, 3),
    kind=st.sampled_from(["sliding", "random", "first"]),
)
@settings(max_examples=60, deadline=None)
def test_clips_stay_inside_the_video_and_never_repeat_a_frame(num_frames, clip, rate, step, kind):
    rule = ClipRule(kind, clip, fps=rate, frame_step=step, per_video=3)
    try:
        chosen = clip_frame_numbers(num_frames, rule, video_fps=30.0)
    except ValueError as error:
        assert "fewer than clip_frames" in str(error)
        return
    assert chosen.min() >= 0
    assert chosen.max() < num_frames
    assert (np.diff(chosen, axis=1) > 0).all()


def test_clips_are_the_frames_that_the_indices_name():
    video = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    assert take_clips(video, ClipRule(clip_frames=4))[:, :, 0, 0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clip_frame_numbers(15, ClipRule()), "15 frames leaves 15 .* fewer than clip_frames=16"),
        (lambda: clip_frame_numbers(0, ClipRule()), "0 frames"),
        (lambda: clip_frame_numbers(40, ClipRule(fps=10)), "give video_fps"),
        (lambda: clip_frame_numbers(40, ClipRule(fps=30), video_fps=10), "ask for 10 or less"),
        (lambda: ClipRule("middle"), "choose one of sliding, random, first"),
        (lambda: ClipRule(clip_frames=0), "clip_frames=0"),
        (lambda: ClipRule(stride_frames=0), "stride_frames=0"),
        (lambda: ClipRule(fps=float("nan")), "fps=nan"),
    ],
)
def test_rules_that_cannot_be_are_one_clear_line(call, words):
    with pytest.raises(ValueError, match=words):
        call()
