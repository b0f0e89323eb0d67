"""Captions to ids: length, special tokens, padding."""

import torch
from teachclip.stages.models.clip.tokens import PAD, VOCABULARY, tokenize


def test_ids_start_and_end_with_special_tokens_and_the_mask_covers_them() -> None:
    ids, mask = tokenize(["a cat", "", "a man is playing a guitar on the stage of a theatre"], 8)
    assert ids.shape == mask.shape == (3, 8)
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert mask.sum(1).tolist() == [4, 2, 8]
    for row, valid in zip(ids, mask.sum(1), strict=True):
        assert row[0] == VOCABULARY - 2
        assert row[valid - 1] == VOCABULARY - 1
        assert row[valid:].eq(PAD).all()
        assert row.argmax() == valid - 1


def test_a_real_word_with_the_padding_id_is_not_masked() -> None:
    ids, mask = tokenize(["!~"], 6)
    assert ids[0, 1] == PAD
    assert mask[0].tolist() == [True, True, True, True, False, False]


def test_more_slots_only_add_padding() -> None:
    captions = ["two dogs run, jump & bark!!!", "café", "日本語"]
    short, long = tokenize(captions, 24)[0], tokenize(captions, 77)[0]
    assert long[:, :24].equal(short)
    assert long[:, 24:].eq(PAD).all()


def test_case_space_and_entities_do_not_matter() -> None:
    ids, _ = tokenize(["A  Dog &amp; a cat ", "a dog & a cat"], 12)
    assert ids[0].equal(ids[1])


def test_no_captions_are_no_rows() -> None:
    ids, mask = tokenize([], 12)
    assert ids.shape == mask.shape == (0, 12)
