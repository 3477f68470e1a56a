"""Prompts made of pages whose facts are drawn by chance, with a question to each."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import regard
from regard.language_model import LanguageModel

MODEL, NEW_TOKENS = "smollm2", 24


def load(name: str = MODEL, library: str | None = None) -> LanguageModel:
    model = regard.load(name, library=library)
    assert isinstance(model, LanguageModel)
    return model


def _words(text: str) -> list[str]:
    return text.split("|" if "|" in text else None)


NAMES = _words(
    "Alma Bruno Carla Dmitri Elena Farid Greta Hugo Irene Jonas Karim Lena Marco Nadia Oscar Petra Quentin Rosa Stefan "
    "Tara Umar Vera Walter Xenia Yusuf Zelda"
)
CITIES = _words(
    "Lisbon Tallinn Porto Bergen Ghent Krakow Turin Riga Malmo Lyon Seville Graz Basel Cork Split Varna Izmir Oulu"
)
JOBS = _words("baker carpenter pilot nurse painter teacher farmer lawyer tailor plumber violinist chemist gardener")
THINGS = _words("lamp bicycle piano telescope clock boat kettle guitar ladder camera violin carpet mirror tent radio")
COLOURS = _words("red green blue yellow purple orange silver brown black white")
DISHES = _words("lentil soup|apple pie|grilled fish|rice pudding|onion bread|goat cheese|plum jam|bean stew")
MONTHS = _words("January February March April May June July August September October November December")
# what a page says of a person, what is asked, and the values
KINDS = (
    ("{name} lives in {value}.", "Where does {name} live?", CITIES),
    ("{name} works as a {value}.", "What is the job of {name}?", JOBS),
    ("{name} bought a {value} last week.", "What did {name} buy last week?", THINGS),
    ("The favourite dish of {name} is {value}.", "What is the favourite dish of {name}?", DISHES),
    ("{name} was born in {value}.", "In which month was {name} born?", MONTHS),
    ("The house of {name} is {value}.", "What colour is the house of {name}?", COLOURS),
)
STORY = (
    "{a} walked slowly along the harbour with {b}, talking about the weather.",
    "In the evening {a} found a {colour} {thing} under the stairs of the old house.",
    "{b} said that the {thing} had once belonged to an uncle in {city}.",
    "Nobody in the village had seen {c} since the storm in {month}.",
    "The miller had promised to repair the bridge before winter, but he had fallen ill.",
    "{c} had left for {city2} because of a quarrel about a {thing2}.",
    "When the bell rang, {b} hid the letter behind the {thing2}.",
    "It rained for three days, and the road to {city} was closed.",
    "{a} cooked {dish} for everyone and sang until midnight.",
    "The doctor, a friend of {c}, sold his house to a {job} from {city2}.",
    "On Sunday {b} painted the door {colour2} and went to bed early.",
    "A {job2} came to ask for work, but there was none.",
    "The children played with a wooden horse that {c} had made.",
    "At last {a} decided to write to {c} and ask for help.",
    "The answer came in {month2}: the money was buried beneath the {colour2} {thing3}.",
)
# which sentence of the story answers
STORY_QUESTIONS = (
    (14, "Where was the money buried?", "The money was buried beneath the {colour2} {thing3}."),
    (5, "Why had {c} left?", "{c} had left because of a quarrel about a {thing2}."),
    (1, "What did {a} find under the stairs?", "{a} found a {colour} {thing}."),
    (6, "Where did {b} hide the letter?", "{b} hid the letter behind the {thing2}."),
    (8, "What did {a} cook?", "{a} cooked {dish}."),
    (12, "Who had made the wooden horse?", "{c} had made it."),
    (2, "To whom had the {thing} once belonged?", "It had belonged to an uncle in {city}."),
    (10, "What colour did {b} paint the door?", "{b} painted it {colour2}."),
)
OPEN_QUESTIONS = (
    "Summarize the story in one sentence.",
    "Tell me what happened to the letter and why.",
    "Who are the people in the story?",
    "What is the most important event here?",
)
CHINESE_NAMES = _words("小明 小红 王伟 李娜 张强 刘洋 陈静 赵磊 孙丽 周杰 吴敏 郑浩 冯雪 何平 高峰 林燕")
CHINESE_KINDS = (
    (
        "{name}住在{value}。",
        "{name}住在哪里？",
        _words("北京 上海 广州 成都 西安 南京 杭州 武汉 重庆 天津 苏州 青岛"),
    ),
    (
        "{name}的工作是{value}。",
        "{name}的工作是什么？",
        _words("医生 老师 律师 厨师 司机 护士 画家 农民 木匠 记者"),
    ),
    (
        "{name}最喜欢吃{value}。",
        "{name}最喜欢吃什么？",
        _words("饺子 面条 米饭 苹果 西瓜 豆腐 包子 烤鸭 火锅"),
    ),
    (
        "{name}的房子是{value}的。",
        "{name}的房子是什么颜色的？",
        _words("红色 绿色 蓝色 黄色 紫色 白色 黑色"),
    ),
)
# what the model knows, and what the answer must have
KNOWN = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Italy?", "Rome"),
    ("What is the capital of Spain?", "Madrid"),
    ("What is the capital of Germany?", "Berlin"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is the capital of Greece?", "Athens"),
    ("What is the capital of Egypt?", "Cairo"),
    ("What is the capital of Russia?", "Moscow"),
    ("What is the capital of China?", "Beijing"),
    ("What is the capital of England?", "London"),
    ("What is the capital of Austria?", "Vienna"),
    ("What is the capital of Ireland?", "Dublin"),
    ("What is the capital of Cuba?", "Havana"),
    ("What is the capital of Norway?", "Oslo"),
    ("Which planet is the largest of the solar system?", "Jupiter"),
    ("Which planet is known as the red planet?", "Mars"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"),
    ("Who painted the Mona Lisa?", "Leonardo"),
    ("Who discovered gravity?", "Newton"),
    ("Who developed the theory of relativity?", "Einstein"),
    ("What is the chemical formula of water?", "H2O"),
    ("Which gas do plants take in from the air?", "carbon dioxide"),
    ("What is the largest ocean on Earth?", "Pacific"),
    ("What is the opposite of hot?", "cold"),
    ("What is the opposite of up?", "down"),
    ("How many days does a week have?", "seven"),
    ("Who was the first president of the United States?", "Washington"),
    ("In which country is the Great Wall?", "China"),
    ("On which continent is Egypt?", "Africa"),
    ("What do bees make?", "honey"),
    ("Which organ pumps blood through the body?", "heart"),
    ("What is the tallest mountain in the world?", "Everest"),
)


@dataclass(frozen=True)
class Page:
    """A prompt of sentences and a question, and the answer that is given; None where the model is to write its own.

    `target` is the sentence that answers, `value` what it says; None where there is none. With the grain "paragraphs"
    its sentences are paragraphs, and `value` is the sentence of the paragraph that answers.
    """

    style: str
    sentences: tuple[str, ...]
    question: str
    answer: str | None = None
    target: int | None = None
    value: str | None = None
    grain: str = "sentences"

    @property
    def is_chinese(self) -> bool:
        return self.style.startswith("Chinese")

    @property
    def prompt(self) -> str:
        between = "\n\n" if self.grain == "paragraphs" else "" if self.is_chinese else " "
        page = between.join(self.sentences)
        return f"{self.question}\n\n{page}" if self.style == "question first" else f"{page}\n\n{self.question}"

    def changed(self, value: str) -> "Page":
        """The same page where the sentence that answers says another value."""
        assert self.target is not None
        assert self.value is not None
        sentences = list(self.sentences)
        sentences[self.target] = sentences[self.target].replace(self.value, value)
        return Page(self.style, tuple(sentences), self.question, None, self.target, value)


def facts(seed: str, count: int, style: str = "facts") -> Page:
    """Facts about people, one of which is asked; the sentence itself is the answer."""
    draw = random.Random(seed)
    kinds, names = (CHINESE_KINDS, CHINESE_NAMES) if style.startswith("Chinese") else (KINDS, NAMES)
    picked = draw.sample([(kind, name) for kind in kinds for name in names], count)
    values = [draw.choice(kind[2]) for kind, _ in picked]
    sentences = tuple(
        kind[0].format(name=name, value=value) for (kind, name), value in zip(picked, values, strict=True)
    )
    target = draw.randrange(count)
    kind, name = picked[target]
    return Page(style, sentences, kind[1].format(name=name), sentences[target], target, values[target])


def other_value(page: Page) -> str:
    """Another value of the same kind, which the page has nowhere."""
    values = next(kind[2] for kind in KINDS if page.value in kind[2])
    return random.Random(page.prompt).choice([each for each in values if each not in " ".join(page.sentences)])


def prose(seed: str, count: int, *, is_given: bool) -> Page:
    """A story, filled up with facts about others; its answer is given, or the model's own."""
    sentences, words, draw = _story(seed, count)
    number, question, answer = draw.choice([each for each in STORY_QUESTIONS if each[0] < len(sentences)])
    return Page("prose", sentences, question.format(**words), answer.format(**words) if is_given else None, number)


def free(seed: str, count: int) -> Page:
    """A story, and a question that no one sentence answers."""
    sentences, _, draw = _story(seed, count)
    return Page("free answer", sentences, draw.choice(OPEN_QUESTIONS))


def _story(seed: str, count: int) -> tuple[tuple[str, ...], dict[str, str], random.Random]:
    draw = random.Random(seed)
    words = dict(zip("abc", draw.sample(NAMES, 3), strict=True))
    several: list[tuple[str, list[str], int]] = [
        ("city", CITIES, 2),
        ("thing", THINGS, 3),
        ("colour", COLOURS, 2),
        ("dish", DISHES, 1),
        ("job", JOBS, 2),
        ("month", MONTHS, 2),
    ]
    for name, values, number in several:
        for index, value in enumerate(draw.sample(values, number)):
            words[f"{name}{index + 1 if index else ''}"] = value
    sentences = [each.format(**words) for each in STORY][:count]
    more = count - len(sentences)
    return (*sentences, *(facts(f"{seed} more", more).sentences if more else ())), words, draw


Maker = Callable[[str, int, int], Page]
STYLES: dict[str, Maker] = {
    "facts": lambda seed, count, number: facts(seed, count),
    "prose": lambda seed, count, number: prose(seed, count, is_given=number % 2 == 0),
    "free answer": lambda seed, count, number: free(seed, count),
    "question first": lambda seed, count, number: facts(seed, count, "question first"),
    "Chinese facts": lambda seed, count, number: facts(seed, count, "Chinese facts"),
}
