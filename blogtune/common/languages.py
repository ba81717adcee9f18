"""Is a text English? What is made by English rules must not be made of another language.

Latin script is told apart by function words, the most frequent words of any text, as short lists
suffice to do (Grefenstette 1995, "Comparing two language identification schemes").
"""

import unicodedata

from blogtune.common.texts import words

# Of the languages that share many of these words; another one simply has too few English words.
_LISTS = {
    "English": (
        "the a an of to in and or is are was were be been it its he she they them his her their "
        "this that these those which who what when where why how with without for from by on at "
        "as not no yes if then than but so do does did has have had can cannot could will would "
        "should must may might there here you your we our us i my me all both each every any some "
        "one only more most much many other into out up over under after before between because "
        "while until through about never always nothing"
    ),
    "German": (
        "der die das den dem des ein eine einen einem einer und oder ist sind war waren es er sie "
        "wir ihr ich nicht kein mit ohne von zu zum zur im in am an auf aus bei für nach wie was "
        "wer wo wann will muss kann hat haben wird werden man auch nur sich als wenn aber so"
    ),
    "Portuguese": (
        "o a os as um uma de do da dos das em no na nos nas e ou é são era não que se "
        "por para com sem mais mas como ao à pelo pela seu sua há tem foi até"
    ),
    "Spanish": (
        "el la los las un una de del en y o es son era no que se por para con sin más pero como "
        "al su sus hay tiene fue hasta lo le"
    ),
    "French": (
        "le la les un une de du des en et ou est sont était ne pas que qui se par pour avec sans "
        "plus mais comme au aux son sa ses il elle on dans sur a"
    ),
    "Italian": (
        "il lo la i gli le un una di del della in nel e o è sono era non che si per con senza "
        "più ma come al alla suo sua ha da"
    ),
    "Dutch": (
        "de het een van in en of is zijn was waren niet geen die dat met zonder voor naar op aan "
        "bij uit als maar zo we ik hij ze er ook te om had"
    ),
    "Swedish": (
        "en ett den det och eller är var inte som med utan för till på av i om men så "
        "han hon de vi man har hade kan ska"
    ),
    "Danish": (
        "en et den det og eller er var ikke som med uden for til på af i om men så han hun de "
        "vi man har havde kan skal"
    ),
}
_FUNCTION_WORDS = {name: frozenset(known.split()) for name, known in _LISTS.items()}
# Of English prose about 0.4 are in the list; of other languages by chance much less.
_LEAST = 0.1


def is_english(text: str) -> bool:
    """Tell whether the text has English function words, more than of any other language here."""
    found = [word for word in words(text) if word[0].isalpha()]
    latin = sum(unicodedata.name(word[0], "").startswith("LATIN") for word in found)
    if 2 * latin <= len(found):
        return False
    hits = {name: sum(word in known for word in found) for name, known in _FUNCTION_WORDS.items()}
    english = hits.pop("English")
    return english >= _LEAST * len(found) and english > max(hits.values())
