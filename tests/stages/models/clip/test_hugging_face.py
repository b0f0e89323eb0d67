"""Text towers and tokenizers of Hugging Face's: tiny ones in a folder, as the hub has them; nothing is fetched."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig
from teachclip.errors import ConfigError, TeachclipError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, network_digest, save_network
from teachclip.stages.models.clip import hub, tokenizers
from teachclip.stages.models.clip.tokenizers import HubTokenizer
from teachclip.stages.models.clip.towers import TEXT_SETTINGS
from teachclip.stages.models.exported.export import SETTINGS, export_model

pytestmark = pytest.mark.extras

VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
CAPTIONS = ["a dog runs", "the cat sleeps on a red chair"]
SMALL = {
    "roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "xlm-roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "mt5": {
        "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2,
        "pad_token_id": 1,  # the words' own
    },
    "m2m_100": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    },
}  # fmt: skip


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer of 100 words, in a folder."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = ["<s>", "<pad>", "</s>", "<unk>", *sorted({word for each in CAPTIONS for word in each.split()})]
    made = Tokenizer(models.WordLevel({word: k for k, word in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    folder = tmp_path / "words"
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(params=SMALL)
def model(request: pytest.FixtureRequest, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tiny model with a text tower of one of the four kinds that open_clip takes."""
    known = json.loads(TEXT_SETTINGS.read_text())
    settings = next(each for each in known.values() if each["model_type"] == request.param)
    folder = tmp_path / request.param
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings | SMALL[request.param] | {"vocab_size": 100}))
    pooler = {"m2m_100": "cls_pooler"}.get(request.param, "mean_pooler")
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(words), "hf_pooler_type": pooler}
    towers = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": text | {"hf_proj_type": "mlp"}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", towers)
    return "tiny"


def test_sentences_are_open_clips_own_whatever_their_slots(model: str, tmp_path: Path) -> None:
    network = build_network(NetworkConfig(trunk=TrunkConfig(model=model, weights=None), words=12, temporal_layers=0))
    theirs = open_clip.create_model(model, pretrained_text=False).eval()
    state = theirs.state_dict()
    network.trunk.load_state_dict(network.trunk.tensors_of(state))
    ids = open_clip.get_tokenizer(model)(CAPTIONS)
    assert ids.shape == (2, 77)
    with torch.no_grad():
        expected = theirs.encode_text(ids, normalize=True)
        network.eval()
        torch.testing.assert_close(network.encode_texts(network.tokenize(CAPTIONS))["vector"], expected)
    save_network(network, tmp_path / "net.safetensors")
    assert network_digest(load_network(tmp_path / "net.safetensors")) == network_digest(network)
    _, cut = network.tokenize_telling([*CAPTIONS, "dog " * 20])
    assert cut.tolist() == [False, False, True]


def test_a_siglip_reads_all_its_positions(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {
        "context_length": 16, "vocab_size": 100, "hf_tokenizer_name": str(words), "width": 64, "heads": 2, "layers": 1,
        "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"},
    }  # fmt: skip
    towers = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": text, "custom_text": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", towers)
    network = build_network(NetworkConfig(trunk=TrunkConfig(model="tiny", weights=None), words=32))
    assert network.config.words == 16
    said = ["A dog: runs!", "the cat"]
    assert torch.equal(network.tokenize(said), open_clip.get_tokenizer("tiny")(said))
    assert network.reads_captions


def test_it_is_exported_with_its_tokenizer(model: str, tmp_path: Path) -> None:
    trunk = TrunkConfig(model=model, weights=None)
    network = build_network(NetworkConfig(trunk=trunk, words=12, frames=3, temporal_layers=0, pooling="mean"))
    save_network(network, tmp_path / "run/best.safetensors")
    done = export_model(str(tmp_path / "run"), tmp_path / "out", "torch")
    assert max(done.differ.values()) < 1e-4
    told = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert told["text"]["inputs"]["ids"]["shape"] == ["texts", 12]
    assert told["tokenizer"]["kind"] == "huggingface"
    assert "tokenizer.json" in told["tokenizer"]["files"]
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).encode(CAPTIONS[0]).ids
    assert ids == network.tokenize(CAPTIONS)[0, : len(ids)].tolist()


def test_every_text_tower_that_open_clip_names_is_described_here() -> None:
    named = {open_clip.get_model_config(model)["text_cfg"].get("hf_model_name") for model in open_clip.list_models()}
    assert {name for name in named - {None} if not name.startswith("/")} == set(json.loads(TEXT_SETTINGS.read_text()))


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"text tower roberta-base needs .*transformers[\s\S]*teachclip\[hf\]"):
        build_network(NetworkConfig(trunk=TrunkConfig(model="roberta-ViT-B-32", weights=None)))
    tokenizers._hub_tokenizer.cache_clear()
    with pytest.raises(ConfigError, match=r"tokenizer timm/ViT-B-16-SigLIP needs .*transformers[\s\S]*teachclip\[hf\]"):
        HubTokenizer("timm/ViT-B-16-SigLIP", {})(["a dog"], 64)


def test_a_tokenizer_out_of_reach_says_where_to_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(tokenizers, "why_out_of_reach", lambda *_: "no network")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    tokenizers._hub_tokenizer.cache_clear()
    with pytest.raises(TeachclipError, match=r"tokenizer no-such/words[\s\S]*no network"):
        HubTokenizer("no-such/words", {})(["a dog"], 64)
