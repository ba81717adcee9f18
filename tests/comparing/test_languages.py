# ruff: noqa: RUF001
"""Other languages end to end: the judge's test and the comparison, or a refusal that says why."""

from dataclasses import dataclass
from functools import cache

import pytest

from blogtune.checking.figures import Fitness
from blogtune.checking.fitness import measure_fitness
from blogtune.checking.probes import build_probes
from blogtune.common.records import Answer, Judgement, Pair
from blogtune.common.texts import sentences
from blogtune.comparing.compare import compare
from blogtune.judging.embedding import EmbeddingJudge
from blogtune.judging.judge import judge_answers
from blogtune.judging.params import JudgeParams
from tests.checking.test_probes import check_params
from tests.comparing.build import params
from tests.judging.test_encoder import minilm


@dataclass(frozen=True)
class Language:
    """Ten huts, what is cooked in each, and where the path to some of them begins."""

    soup: tuple[str, str]
    path: tuple[str, str]
    foods: str
    places: str


LANGUAGES = {
    "English": Language(
        ("What is cooked at hut {n}?", "At hut {n} they cook {x}. It is served with dark bread."),
        ("Where is the path to hut {n}?", "The path begins at the {x}. It is steep and long."),
        "barley soup,fried trout,cheese dumplings,apple cake,roast goat,lentil stew,egg noodles,"
        "mushroom rice,plum jam,onion tart",
        "station,church,lake,mill",
    ),
    "German": Language(
        ("Was kocht man in Hütte {n}?", "In Hütte {n} kocht man {x}. Dazu gibt es z. B. Brot."),
        ("Wo ist der Weg zu Hütte {n}?", "Der Weg beginnt hinter {x}. Er ist steil und lang."),
        "Gerstensuppe,gebratene Forelle,Käseknödel,Apfelkuchen,Ziegenbraten,Linseneintopf,"
        "Eiernudeln,Pilzreis,Pflaumenmus,Zwiebelkuchen",
        "dem Bahnhof,der Kirche,dem See,der Mühle",
    ),
    "Portuguese": Language(
        ("O que se cozinha na cabana {n}?", "Na cabana {n} cozinham {x}. Vem com pão escuro."),
        ("Onde é o caminho da cabana {n}?", "O caminho começa {x}. No mês do agosto é seco."),
        "sopa de cevada,truta frita,bolinhos de queijo,bolo de maçã,cabrito assado,lentilhas,"
        "massa com ovos,arroz de cogumelos,doce de ameixa,torta de cebola",
        "na estação,na igreja,no lago,no moinho",
    ),
    "Chinese": Language(
        ("{n}号山屋做什么菜？", "{n}号山屋的管理员做{x}。每天晚上都配黑面包。"),
        ("去{n}号山屋的路在哪里？", "路从{x}开始。这条路又陡又长。"),
        "大麦汤,煎鳟鱼,奶酪饺子,苹果蛋糕,烤山羊,炖扁豆,鸡蛋面,蘑菇饭,李子酱,洋葱饼",
        "车站,教堂,湖边,磨坊",
    ),
    "Japanese": Language(
        ("{n}番の小屋では何を作りますか？", "{n}番の小屋では{x}を作ります。黒いパンが付きます。"),
        ("{n}番の小屋への道はどこですか？", "道は{x}から始まります。急で長い道です。"),
        "大麦のスープ,焼いた鱒,チーズ団子,りんごのケーキ,山羊の焼き肉,豆の煮物,卵の麺,"
        "きのこご飯,すもものジャム,玉ねぎのパイ",
        "駅,教会,湖,水車",
    ),
    "Arabic": Language(
        ("ماذا يطبخون في الكوخ {n}؟", "في الكوخ {n} يطبخون {x}. ويقدمونه مع الخبز الأسود."),
        ("أين الطريق إلى الكوخ {n}؟", "يبدأ الطريق عند {x}. وهو طريق طويل وصعب."),
        "حساء الشعير,السمك المقلي,كرات الجبن,كعكة التفاح,لحم الماعز,العدس,المعكرونة,"
        "الأرز بالفطر,مربى الخوخ,فطيرة البصل",
        "المحطة,الكنيسة,البحيرة,الطاحونة",
    ),
}
READ = ("English", "German", "Portuguese")


def pairs(language: str) -> list[Pair]:
    texts = LANGUAGES[language]
    return [
        Pair(
            id=f"{kind}{number}",
            post=f"post {number}",
            question=question.format(n=number),
            answer=answer.format(n=number, x=filling),
        )
        for kind, (question, answer), fillings in (
            ("soup", texts.soup, texts.foods),
            ("path", texts.path, texts.places),
        )
        for number, filling in enumerate(fillings.split(","))
    ]


@cache
def judge() -> EmbeddingJudge:
    return EmbeddingJudge(minilm())


@cache
def fitness(language: str) -> Fitness:
    return measure_fitness(judge(), judge(), pairs(language), [], check_params())


def judged(language: str, good: str) -> list[Judgement]:
    """Model `good` says what is right, the others what is so of another hut."""
    given = pairs(language)

    def answer(model: str, place: int) -> Answer:
        pair, other = given[place], given[(place + 3) % len(given)]
        right = " ".join(reversed(sentences(pair.answer)))
        text = {"echo": pair.question, good: right}.get(model, other.answer)
        values = pair.model_dump(include={"id", "post", "question"})
        return Answer(
            **values, reference=pair.answer, model=model, answer=text, stop="end", tokens=9
        )

    models = ("base", "finetuned", "fused", "echo")
    answers = [answer(model, place) for model in models for place in range(len(given))]
    section = JudgeParams.model_construct(other_references=0, seed=7)
    return list(judge_answers(answers, judge(), section))


def verdict(language: str, good: str) -> tuple[str, str]:
    found = compare(judged(language, good), set(), fitness(language), params())
    return found.metrics["finetuned"]["outcome"], found.metrics["finetuned"]["verdict"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_a_right_verdict_or_a_reason_why_there_is_none(language: str) -> None:
    better, said = verdict(language, good="finetuned")
    worse, _ = verdict(language, good="base")
    if language in READ:
        assert (better, worse) == ("improved", "worse")
        assert ("not tested with: refusal, negation" in said) == (language != "English")
        return
    assert (better, worse) == ("no verdict", "no verdict")
    assert "it cannot read this language; set judge.model.source to a multilingual" in said
    assert "\n" not in said


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_made_by_english_rules_is_made_of_english_only(language: str) -> None:
    # Regression: "No mês do not agosto" counted as a negation that the judge had seen.
    kinds = {probe.kind for probe in build_probes(pairs(language), {}, check_params())}
    made = kinds & {"negation", "refusal", "padding"}
    assert made == ({"negation", "refusal", "padding"} if language == "English" else set())
    assert {"half", "numbers", "reordered", "same_post", "echo"} <= kinds
