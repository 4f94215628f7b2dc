"""The tokenizer of the small model's prompts."""

from skyreels_audio.synthetic.words import word_tokenizer


def test_words_of_captions_are_whole_and_any_text_comes_back() -> None:
    tokenizer = word_tokenizer()
    assert len(tokenizer("A woman before a dark teal wall").input_ids) == 8  # and the end
    odd = "żółw 🐢, freckles"
    ids = tokenizer(odd).input_ids
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == odd
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]
