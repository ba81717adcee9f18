import pytest

from blogtune.common.languages import is_english


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("The rank is low.", id="a sentence"),
        pytest.param("It cannot help.", id="a short one"),
        pytest.param("No, both count.", id="words that Portuguese has too"),
        pytest.param("Set `train.lora.rank` to 8 and run it again.", id="with code"),
    ],
)
def test_english_is_told_by_its_function_words(text: str) -> None:
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Wer im August kommen will, muss drei Wochen vorher buchen.", id="German"),
        pytest.param("Hunde schlafen im Vorraum. Was eine Decke kostet: 2 Franken.", id="was"),
        pytest.param("No mês do agosto é preciso reservar três semanas antes.", id="Portuguese"),
        pytest.param("No se puede entrar en la casa sin llave.", id="Spanish"),
        pytest.param("On a son pain chaque soir.", id="French"),
        pytest.param("Het huis is klein, we had er een.", id="Dutch"),
        pytest.param("Talossa on kaksi huonetta ja kahdeksan vuodetta.", id="Finnish, not listed"),
        pytest.param("小屋有两个房间。", id="Chinese"),
        pytest.param("この小屋には部屋が二つあります。", id="Japanese"),
        pytest.param("في الكوخ غرفتان.", id="Arabic"),
        pytest.param("", id="nothing"),
        pytest.param("42", id="a number"),
    ],
)
def test_other_languages_are_not_english(text: str) -> None:
    assert not is_english(text)
