"""Prompts and start frames to embeddings."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BatchEncoding

from worldstereo import WorldStereo
from worldstereo.sampling.encoders import TEXT_TOKENS, ImageEncoder, TextEncoder, clean_prompt


@pytest.fixture
def text_encoder(distilled: WorldStereo) -> TextEncoder:
    """The bundled encoder with an empty memory."""
    assert distilled.text_encoder is not None
    return TextEncoder(distilled.text_encoder.tokenizer, distilled.text_encoder.model, remember=2)


@pytest.fixture
def image_encoder(distilled: WorldStereo) -> ImageEncoder:
    assert distilled.image_encoder is not None
    return distilled.image_encoder


@pytest.fixture
def photo(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("  a\n\n chair\t ", "a chair"),
        ("table &amp; chair", "table & chair"),
        ("table &amp;amp; chair", "table & chair"),
        ("&amp;lt;b&amp;gt;", "<b>"),
        ("schÃ¶n", "schön"),
        ("“quoted”", '"quoted"'),
        ("a\u00a0b\u3000c", "a b c"),
        ("", ""),
    ],
)
def test_prompts_are_cleaned(given: str, cleaned: str) -> None:
    assert clean_prompt(given) == cleaned


def test_cleaning_again_changes_nothing() -> None:
    once = clean_prompt(" A &quot;room&quot;\r\n with  a   view ")
    assert clean_prompt(once) == once == 'A "room" with a view'


def test_an_embedding_has_512_tokens_and_zeros_behind_the_text(text_encoder: TextEncoder) -> None:
    prompt = "a red chair"
    embedding = text_encoder.encode(prompt)
    assert embedding.shape == (1, TEXT_TOKENS, text_encoder.model.config.d_model)
    assert embedding.dtype == torch.float32
    used = len(prompt.encode()) + 1  # a byte a token, then </s>
    assert not embedding[0, used:].any()
    assert embedding[0, :used].abs().sum(-1).min() > 0


@torch.no_grad()
def test_padding_does_not_change_the_text_before_it(text_encoder: TextEncoder) -> None:
    prompt = "a red chair"
    tokens: BatchEncoding = text_encoder.tokenizer([prompt], return_tensors="pt")
    alone = text_encoder.model(**tokens).last_hidden_state
    torch.testing.assert_close(
        text_encoder.encode(prompt)[:, : alone.shape[1]], alone, rtol=0, atol=1e-5
    )


def test_a_long_prompt_is_cut_off(text_encoder: TextEncoder) -> None:
    long = text_encoder.encode("x" * 2000)
    assert long.shape[1] == TEXT_TOKENS
    assert torch.equal(long, text_encoder.encode("x" * 3000))
    assert long[0, -1].any()


def test_equal_prompts_are_encoded_once(
    text_encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    embed = text_encoder._embed

    def counted(text: str) -> torch.Tensor:
        encoded.append(text)
        return embed(text)

    monkeypatch.setattr(text_encoder, "_embed", counted)
    first = text_encoder.encode("a chair")
    assert text_encoder.encode("  a   chair\n") is first
    text_encoder.encode("negative")
    text_encoder.encode("a chair")
    text_encoder.encode("another")  # two are remembered: "negative" was used longest ago
    assert text_encoder.encode("a chair") is first
    assert encoded == ["a chair", "negative", "another"]
    text_encoder.encode("negative")
    assert encoded[-1] == "negative"


@torch.no_grad()
def test_image_tokens_are_the_second_last_hidden_state(
    image_encoder: ImageEncoder, photo: Image.Image
) -> None:
    tokens = image_encoder.encode(photo)
    config = image_encoder.model.config
    assert tokens.shape == (1, 257, config.hidden_size)
    assert tokens.dtype == torch.float32
    # Without the last layer, what is left over is that state.
    pixels = image_encoder.processor(images=photo, return_tensors="pt").pixel_values
    states: list[torch.Tensor] = []
    layers = image_encoder.model.encoder.layers
    handle = layers[-2].register_forward_hook(lambda module, inputs, output: states.append(output))
    last = image_encoder.model(pixels).last_hidden_state
    handle.remove()
    state = states[0][0] if isinstance(states[0], tuple) else states[0]
    assert torch.equal(tokens, state)
    assert not torch.equal(tokens, last)


def test_images_are_prepared_with_pil(image_encoder: ImageEncoder, photo: Image.Image) -> None:
    """Resized to 224 on the shorter side (bicubic), cut to the middle, normalised."""
    pixels = image_encoder.processor(images=photo, return_tensors="pt").pixel_values
    resized = photo.resize((336, 224), Image.Resampling.BICUBIC).crop((56, 0, 280, 224))
    unit = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1) / 255
    mean = torch.tensor(image_encoder.processor.image_mean)[:, None, None]
    std = torch.tensor(image_encoder.processor.image_std)[:, None, None]
    torch.testing.assert_close(pixels[0], (unit - mean) / std, rtol=0, atol=1e-5)
