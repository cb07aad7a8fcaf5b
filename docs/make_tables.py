"""Write the figures of the embedded study into the texts that report them.

    python docs/make_tables.py

Each block between `<!-- results: NAME -->` and `<!-- /results -->` is replaced by the output of the
function of that name in BLOCKS. Edit the words here, never in the texts. tests/test_study.py checks
that the texts are up to date and that the study supports what they claim.
"""

import re
import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from activekd_lite.analysis import advice, metrics, statistics, tasks
from activekd_lite.experiments import sweep
from activekd_lite.strategies import PAPER_STRATEGIES

ROOT = Path(__file__).resolve().parent.parent
TEXTS = (
    "README.md",
    "docs/results.md",
    "docs/questions.md",
    "docs/paper-figures.md",
    "docs/tasks.md",
    "data/study/README.md",
)
WIDTH = 130
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- /results -->)", re.S)


@dataclass(frozen=True)
class Study:
    """The embedded study, and its numbers as they are printed."""

    results: pd.DataFrame
    teachers: dict[tuple[str, str], float]
    figures: pd.DataFrame  # of the runs for the paper's figures
    tasks: pd.DataFrame = field(default_factory=pd.DataFrame)  # of the study over tasks
    controlled: pd.DataFrame = field(default_factory=pd.DataFrame)  # of its second part
    cards: pd.DataFrame = field(default_factory=pd.DataFrame)  # of its tasks
    blocks: dict[str, str] = field(default_factory=dict)  # those that are written, by name

    @cached_property
    def leads(self) -> dict[str, pd.DataFrame]:
        """PCoreSet's leads in the study over tasks, by rival."""
        return {r: tasks.paired_leads(self.tasks, against=r) for r in advice.AGAINST}

    @cached_property
    def slopes(self) -> pd.DataFrame:
        """The regression of the hypothesis: the lead over random choice on gap and log classes."""
        table = tasks.task_leads(self.leads["random"]).merge(self.cards, on="dataset")
        table["log classes"] = np.log(table["classes"])
        return tasks.regress(table["lead"], table[["gap_points", "log classes"]])

    @cached_property
    def shuffled(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Leads with a shuffled teacher, and what they lack of those with the original one."""
        shuffled = tasks.paired_leads(self.controlled).query("teacher == 'zero-shot+shuffled'")
        keys = ["dataset", "seed"]
        both = shuffled.merge(self.leads["random"], on=keys, suffixes=("", "_original"))
        return both, both.assign(lead=both["lead_original"] - both["lead"])

    @cached_property
    def settings(self) -> dict[str, pd.DataFrame]:
        return statistics.settings(self.results)

    @cached_property
    def summary(self) -> pd.DataFrame:
        return statistics.summary(self.results).set_index(["data set", "strategy"])

    @cached_property
    def gains(self) -> pd.DataFrame:
        return statistics.gains(self.results).set_index(["setting", "strategy", "value"])

    def gain(self, setting: str, strategy: str, value: str) -> str:
        """What the teacher adds to a strategy, in points, such as "+3.1 ± 1.1"."""
        row = self.gains.loc[(setting, strategy, value)]
        return statistics.interval_text(row["mean"], row["half_width"], "+")

    def gain_range(self, data: str) -> str:
        """Smallest and largest mean gain of the strategies over the rounds, such as "6 to 10"."""
        means = self.gains["mean"].xs((f"{data}, zero-shot", "aulc_pct"), level=(0, 2))
        return f"{means.min():.0f} to {means.max():.0f}"

    @cached_property
    def _comparisons(self) -> dict[tuple[str, bool], pd.DataFrame]:
        return {
            (setting, distill): metrics.paired_comparisons(
                statistics.paired(results, distill=distill)
            ).set_index(["a", "b"])
            for setting, results in self.settings.items()
            for distill in (True, False)
        }

    def comparisons(self, setting: str, *, distill: bool = True) -> pd.DataFrame:
        """The 15 pairs of strategies by area under the curve, see `paired_comparisons`."""
        return self._comparisons[setting, distill]

    def pair(self, setting: str, a: str, b: str, *, distill: bool = True) -> pd.Series:
        """One row of `comparisons`, with `difference` as a - b."""
        table = self.comparisons(setting, distill=distill)
        if (a, b) in table.index:
            return table.loc[(a, b)]
        row = table.loc[(b, a)].copy()
        row["difference"], row["wins"], row["losses"] = (
            -row["difference"],
            row["losses"],
            row["wins"],
        )
        return row

    def gap(self, setting: str, a: str, b: str, *, distill: bool = True, sign: str = "+") -> str:
        """The mean difference a - b in points, such as "+1.3 ± 0.6"."""
        row = self.pair(setting, a, b, distill=distill)
        return statistics.interval_text(row["difference"], row["half_width"], sign)

    def significant(self, setting: str, *, distill: bool = True) -> str:
        """How many of the pairs differ significantly, such as "5 of 15"."""
        p = self.comparisons(setting, distill=distill)["p_holm"]
        return f"{(p < 0.05).sum()} of {len(p)}"

    def last(self, setting: str, strategy: str) -> str:
        """Test accuracy after the last round, with the teacher."""
        values = statistics.paired(self.settings[setting], "last_pct")[strategy]
        return statistics.interval_text(*metrics.mean_interval(values))

    def calibration(self, data: str, teacher: str) -> str:
        """Range of the strategies' expected calibration error after the last round, in percent."""
        table = self.results
        chosen = (table["dataset"] == data) & (table["teacher"] == teacher)
        last = table[chosen & (table["round"] == table["round"].max())]
        means = last.groupby("strategy")["calibration_error_pct"].mean()
        return f"{means.min():.0f} to {means.max():.0f}"

    def first(self, strategy: str, *, distill: bool = True) -> str:
        """How often a strategy is first, counted as the paper counts, such as "18 of 32"."""
        row = statistics.firsts(self.results, distill=distill).set_index("strategy").loc[strategy]
        return f"{row['first']:.0f} of {row['of']:.0f}"


def load_study() -> Study:
    """Read data/study."""
    path = sweep.STUDY / "paper-figures.parquet"
    figures = sweep.load(path) if path.is_file() else pd.DataFrame()
    cards, runs = advice.load_study()
    controlled = sweep.load(sweep.STUDY / "structure.parquet")
    teachers = sweep.teachers(sweep.STUDY)
    return Study(sweep.load(sweep.STUDY), teachers, figures, runs, controlled, cards)


def picture(study: Study) -> str:
    """The picture of README.md with its description."""
    digits = study.results[study.results["dataset"] == "digits"]
    runs = digits[(digits["strategy"] == "pcoreset") & (digits["teacher"] != "clap")]
    curves = statistics.curves_frame(runs)
    taught, plain = (curves[curves["distill"] == on]["mean"] for on in (True, False))
    return _wrapped(f"""
![Left: a map of the first student's answers to 1,100 handwritten digits. Most classes form an arm
with their labelled image near the tip; the ten images that PCoreSet queries, numbered in order, lie
further in, along the arms and where they meet. Right: learning curves on the same digits, ten
seeds: with the teacher from {taught.iloc[0]:.0f} % at 10 labels to {taught.iloc[-1]:.0f} % at 90,
from labels alone from {plain.iloc[0]:.0f} % to {plain.iloc[-1]:.0f} %; the teacher alone reaches
{study.teachers["digits", "zero-shot"]:.0f} %.](notebooks/picture.png)
""")


def short(study: Study) -> str:
    """README.md: one small table and three sentences."""
    cells = [
        (d, "zero-shot", column) for d in ("digits", "shapes") for column in ("with", "without")
    ]
    header = "| | `digits`, with teacher | labels alone | `shapes`, with teacher | labels alone |"
    d, s = "digits, zero-shot", "shapes, zero-shot"
    text = f"""
With a teacher every strategy gains: {study.gain_range("digits")} points on `digits` and
{study.gain_range("shapes")} on `shapes`, more than strategies differ from each other. PCoreSet then
wins on `shapes`, ahead of the second-best strategy, classbalanced, by
{study.gap(s, "pcoreset", "classbalanced", sign="")} points, but on `digits` it is only level with
coreset ({study.gap(d, "pcoreset", "coreset")}) and badge ({study.gap(d, "pcoreset", "badge")}).
Without a teacher PCoreSet does not win: on `digits` coreset is ahead of it by
{study.gap(d, "coreset", "pcoreset", distill=False, sign="")} points, and on `shapes` no strategy
beats random choice.
"""
    return f"{_table(study, header, cells)}\n{_wrapped(text)}"


def table(study: Study) -> str:
    """docs/results.md: all settings."""
    columns = (
        ("zero-shot", "with"),
        ("clap", "with"),
        ("zero-shot", "without"),
        ("zero-shot", "gain"),
    )
    cells = [(data, *column) for data in ("digits", "shapes") for column in columns]
    header = (
        "| | digits: zero-shot | CLAP | no teacher | gain "
        "| shapes: zero-shot | CLAP | no teacher | gain |"
    )
    text = f"""
The zero-shot teacher alone has an accuracy of {study.teachers["digits", "zero-shot"]:.1f} % on the
test images of `digits` and {study.teachers["shapes", "zero-shot"]:.1f} % on those of `shapes`.
"""
    return f"{_table(study, header, cells)}\n{_wrapped(text)}"


def _table(study: Study, header: str, columns: list[tuple[str, str, str]]) -> str:
    """One row per strategy; columns: data set, teacher, and a column of `summary`."""
    lines = [header, "|---" * (len(columns) + 1) + "|"]
    for strategy in PAPER_STRATEGIES:
        cells = [study.summary.loc[(f"{d}, {t}", strategy), c] for d, t, c in columns]
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def findings(study: Study) -> str:
    """docs/results.md and data/study/README.md: what the study shows, and what it does not."""
    d, s, plain = "digits, zero-shot", "shapes, zero-shot", {"distill": False}
    return _wrapped(f"""
- **The teacher matters more than the choice of strategy.** It adds
  {study.gain(d, "random", "first_pct")} points to the first student on `digits` (10 labels) and
  {study.gain(s, "random", "first_pct")} on `shapes` (36); averaged over all rounds,
  {study.gain_range("digits")} and {study.gain_range("shapes")} points. Every strategy gains. On
  `digits`, the strategies that are best without a teacher gain least.
- **On `digits` the gain shrinks to nothing for the best strategies.** After 90 labels it is
  {study.gain(d, "random", "last_pct")} points for random choice, but
  {study.gain(d, "pcoreset", "last_pct")} for PCoreSet, {study.gain(d, "coreset", "last_pct")} for
  coreset and {study.gain(d, "badge", "last_pct")} for badge, which may be chance. Labels
  correct what the teacher gets wrong.
- **With a teacher, PCoreSet wins on one of two data sets.** `shapes`, with 36 classes and a student
  that stays far below its teacher, is closer to the paper's case. There PCoreSet is ahead of all
  others in all ten seeds: of classbalanced, the second-best, by
  {study.gap(s, "pcoreset", "classbalanced", sign="")} points, of random choice by
  {study.gap(s, "pcoreset", "random", sign="")}. Its five differences are significant, as are
  {study.significant(s)} in all. On `digits` it is ahead of random choice
  ({study.gap(d, "pcoreset", "random")}) and uncertainty
  ({study.gap(d, "pcoreset", "uncertainty")}), **but level with coreset
  ({study.gap(d, "pcoreset", "coreset")}) and badge ({study.gap(d, "pcoreset", "badge")})**, which
  are ahead of random choice, too. {study.significant(d)} differences are significant there, and
  only just: among students of CLAP, which are equally good on average, it is
  {study.significant("digits, clap")}.
- **Without a teacher the choice matters, and PCoreSet is not the best.** On `digits` coreset is
  ahead of all others, of PCoreSet by {study.gap(d, "coreset", "pcoreset", **plain, sign="")} points
  and of random choice by {study.gap(d, "coreset", "random", **plain, sign="")};
  {study.significant(d, **plain)} differences are significant. On `shapes` no strategy is ahead of
  random choice (PCoreSet {study.gap(s, "pcoreset", "random", **plain)}, not significant); the only
  significant differences ({study.significant(s, **plain)}) are that uncertainty is behind every
  other strategy.
- **By the paper's way of counting**, PCoreSet is first in {study.first("pcoreset")} comparisons
  with a teacher and in {study.first("pcoreset", **plain)} without.
- **The few-shot teacher makes hardly any difference here.** Initialised as in its paper, CLAP
  learns slowly from the long text features of `tiny-clip`, and its students are as good as those
  of the zero-shot teacher.
- **The student overtakes the teacher on `digits` and stays far below it on `shapes`**: with
  PCoreSet, its accuracy after the last round is {study.last(d, "pcoreset")} % and
  {study.last(s, "pcoreset")} %. On `shapes`, a network of 0.16 million parameters does not get
  there in 150 steps; longer training was not tried.
- **The teacher makes calibration worse** by the end, because the distilled student's prediction is
  the mean of two heads and therefore underconfident. The expected calibration error after the
  last round, averaged per strategy, is {study.calibration("digits", "zero-shot")} % with the
  teacher and {study.calibration("digits", "none")} % without on `digits`,
  {study.calibration("shapes", "zero-shot")} % and {study.calibration("shapes", "none")} % on
  `shapes`.
- **This is two small data sets with one teacher and one small student each; it says nothing about
  others.** More seeds vary the run, not the task.
""")


def random_choice(study: Study) -> str:
    """docs/questions.md: how far PCoreSet is ahead of random choice."""
    lead = study.gap("digits, zero-shot", "pcoreset", "random", sign="")
    return _wrapped(f"""
Often it is better, but not by much. With the teacher the first student is already good, and the
curves lie close together: on `digits` PCoreSet is ahead of random choice by {lead}
points and not ahead of coreset at all. Without a teacher, no strategy is ahead of random choice on
`shapes`.
""")


# Of fig. 7: in words, the column, and whether PCoreSet is highest in the paper
PAPER_CURVES = {
    "nearest-neighbour loss": ("nearest_neighbor_loss_pct", False),
    "cluster purity": ("cluster_purity_pct", True),
    "accuracy of the few-shot teacher": ("few_shot_accuracy_pct", True),
}
# Of fig. 8: the strategy that leads, and PCoreSet's rank, in the paper
PAPER_QUERIES = {
    "uncertainty": ("uncertainty", 3),
    "class balance": ("classbalanced", 3),
    "feature diversity": ("coreset", 2),
    "probability diversity": ("pcoreset", 1),
}


NOT_YET = "Not answered: no data set has a finished run of all seven strategies yet.\n"


def _figure_parts(study: Study) -> dict[str, pd.DataFrame]:
    """The settings of the figures' runs that have every strategy for at least one seed."""
    parts = statistics.settings(study.figures) if len(study.figures) else {}
    whole = {n: statistics.paired_means(part, "accuracy_pct").dropna() for n, part in parts.items()}
    return {n: part for n, part in parts.items() if len(whole[n]) and whole[n].shape[1] == 7}


def _curve_means(part: pd.DataFrame, column: str) -> pd.DataFrame:
    return statistics.paired_means(part, column).dropna()


def paper_radius(study: Study) -> str:
    """docs/paper-figures.md: the covering radius, which the stored study recorded."""
    cells, lines = {}, []
    for name in ("digits, zero-shot", "shapes, zero-shot"):
        means = _curve_means(study.settings[name], "covering_radius")
        cells[f"{name} (n = {len(means)})"] = {s: _thousandths(means[s]) for s in means}
        order = list(means.mean().sort_values().index)
        gaps = ", ".join(
            f"{_thousandths(means['pcoreset'] - means[other], '+')} against {other}"
            for other in order
            if other != "pcoreset"
        )
        place = order.index("pcoreset") + 1
        verdict = "found" if place == 1 else "not found"
        lines.append(
            f"- `{name}`: PCoreSet smallest, **{verdict}**. It is place {place} of {len(order)}; "
            f"paired differences: {gaps}."
        )
    return f"{_markdown(pd.DataFrame(cells))}\n{_wrapped(chr(10).join(lines))}"


def _thousandths(values: pd.Series, sign: str = "") -> str:
    """Mean and 95 % interval of values that lie between 0 and 1."""
    mean, half_width = metrics.mean_interval(values)
    return f"{mean:{sign}.3f} ± {half_width:.3f}"


def paper_curves(study: Study) -> str:
    """docs/paper-figures.md: the three panels of fig. 7, one column per data set and panel."""
    cells, parts = {}, _figure_parts(study)
    for name, part in parts.items():
        for words, (column, _) in PAPER_CURVES.items():
            means = _curve_means(part, column)
            texts = {s: statistics.interval_text(*metrics.mean_interval(means[s])) for s in means}
            cells[f"{name} (n = {len(means)}): {words} (%)"] = texts
    return _markdown(pd.DataFrame(cells)) if cells else NOT_YET


def paper_queries(study: Study) -> str:
    """docs/paper-figures.md: the diagnostics of fig. 8."""
    cells = {}
    for name, part in _figure_parts(study).items():
        ranks = _query_ranks(part)
        for diagnostic, rows in statistics.query_diagnostics(part).groupby("diagnostic"):
            texts = rows.set_index("strategy")["mean"].map("{:.2f}".format)
            rank = ranks[diagnostic].map(" ({:.0f})".format).reindex(texts.index, fill_value="")
            cells[f"{name}: {diagnostic}"] = texts + rank
    return _markdown(pd.DataFrame(cells)) if cells else NOT_YET


def _query_ranks(part: pd.DataFrame) -> pd.DataFrame:
    """Ranks of the paper's six strategies in each diagnostic, as columns."""
    table = statistics.query_diagnostics(part[part["strategy"].isin(PAPER_STRATEGIES)])
    return table.pivot(index="strategy", columns="diagnostic", values="rank")


def paper_orders(study: Study) -> str:
    """docs/paper-figures.md: which of the paper's orders are found."""
    lines = []
    for name, part in _figure_parts(study).items():
        for words, (column, highest) in PAPER_CURVES.items():
            lines.append(f"- `{name}`, {words}: {_order(_curve_means(part, column), highest)}")
        ranks = _query_ranks(part)
        led = [d for d, (leader, _) in PAPER_QUERIES.items() if ranks[d].idxmin() == leader]
        own = f"{len(led)} of 4 ({', '.join(led)})" if led else "none of 4"
        places = [f"{d} {ranks[d]['pcoreset']:.0f} ({p})" for d, (_, p) in PAPER_QUERIES.items()]
        lines.append(
            f"- `{name}`, queries: each strategy leads on its own diagnostic in {own}; PCoreSet's "
            f"ranks, with the paper's in brackets: {', '.join(places)}."
        )
    return _wrapped("\n".join(lines)) if lines else NOT_YET


def _order(means: pd.DataFrame, highest: bool) -> str:
    """Whether PCoreSet is first and PCoreSet+R last, with their paired difference."""
    order = list(means.mean().sort_values(ascending=not highest).index)
    places = {s: order.index(s) + 1 for s in ("pcoreset", "pcoreset_reversed")}
    texts = {}
    for other in ("pcoreset_reversed", "random"):
        mean, half = metrics.mean_interval(means["pcoreset"] - means[other])
        texts[other] = statistics.interval_text(mean, half, "+")
        if other == "pcoreset_reversed":
            clear = (mean > half) if highest else (-mean > half)
    ends = places["pcoreset"] == 1 and places["pcoreset_reversed"] == len(order)
    verdict = "found" if ends and clear else "found in part" if clear else "not found"
    return (
        f"**{verdict}**. PCoreSet is place {places['pcoreset']} of {len(order)}, PCoreSet+R place "
        f"{places['pcoreset_reversed']}; PCoreSet minus PCoreSet+R is {texts['pcoreset_reversed']} "
        f"points, minus random {texts['random']} (n = {len(means)})."
    )


def _markdown(table: pd.DataFrame) -> str:
    """A markdown table with the index as the first column."""
    rows = [
        f"| {name} | {' | '.join(row)} |"
        for name, row in zip(table.index, table.values, strict=True)
    ]
    header = f"| | {' | '.join(table.columns)} |"
    return "\n".join([header, "|---" * (len(table.columns) + 1) + "|", *rows]) + "\n"


def _wrapped(text: str) -> str:
    """Fill paragraphs and list items up to WIDTH."""
    items = re.split(r"\n(?=- )", text.strip())
    filled = (
        textwrap.fill(
            " ".join(item.split()),
            WIDTH,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )
    return "\n".join(filled) + "\n"


def _over_tasks(leads: pd.DataFrame) -> str:
    """The mean over tasks and its interval, such as "+1.2 (+0.8 to +1.7)"."""
    mean, low, high = tasks.mean_over_tasks(leads)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _verdicts(study: Study) -> tuple[str, str]:
    """Supported, refuted or not decided, by the rules of data/study/hypothesis.md."""
    slopes = study.slopes
    low, high = (slopes["slope"] + sign * slopes["half_width"] for sign in (-1, 1))
    first = "supported" if (low > 0).all() else "refuted" if (high < 0).any() else "not decided"
    lead, loss = (tasks.mean_over_tasks(part) for part in study.shuffled)
    if loss[1] > 0 and lead[1] <= 0 <= lead[2]:
        return first, "supported"
    return first, "refuted" if loss[0] <= 0 else "not decided"


def over_tasks(study: Study) -> str:
    """README.md and data/study/README.md: the study over tasks in one paragraph."""
    over = study.leads
    per_task = tasks.task_leads(over["random"])
    slopes = study.slopes.set_index("predictor")
    gap, classes = (
        statistics.interval_text(*slopes.loc[name, ["slope", "half_width"]], "+")
        for name in ("gap_points", "log classes")
    )
    lead, loss = study.shuffled
    first, second = _verdicts(study)
    seeds = over["random"].groupby("dataset")["seed"].nunique()
    few = "one seed" if seeds.min() == 1 else f"{seeds.min()} paired seeds"
    return _wrapped(f"""
Over {len(per_task)} tasks ({few} each; means and 95 % bootstrap intervals over tasks), PCoreSet
with the teacher is ahead of random choice by {_over_tasks(over["random"])} points, on
{(per_task["lead"] > 0).sum()} of {len(per_task)}, and of coreset by
{_over_tasks(over["coreset"])}. A hypothesis was committed before the runs. That the lead grows
with the gap between teacher and student and with the number of classes: **{first}** ({gap} and
{classes} points per standard deviation). That shuffling the teacher's doubt removes it:
**{second}** (on {lead["dataset"].nunique()} tasks the lead is then {_over_tasks(lead)}, the loss
{_over_tasks(loss)}).
""")


def task_table(study: Study) -> str:
    """docs/tasks.md: card and leads of each task, largest lead over random choice first."""
    over = {r: tasks.task_leads(leads).set_index("dataset") for r, leads in study.leads.items()}
    cards = study.cards.set_index("dataset")
    columns = ("classes", "teacher, %", "gap", "lead over random", "lead over coreset", "seeds")
    lines = [f"| task | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in over["random"].sort_values("lead", ascending=False).iterrows():
        card, rival = cards.loc[name], over["coreset"].loc[name]
        leads = (statistics.interval_text(r["lead"], r["half_width"], "+") for r in (row, rival))
        known = (card["classes"], card["teacher_accuracy_pct"], card["gap_points"])
        numbers = " | ".join(f"{number:.0f}" for number in known)
        lines.append(f"| `{name}` | {numbers} | {' | '.join(leads)} | {row['n']:.0f} |")
    return "\n".join(lines) + "\n"


BLOCKS = {
    block.__name__: block
    for block in (
        picture,
        short,
        table,
        findings,
        random_choice,
        paper_radius,
        paper_curves,
        paper_queries,
        paper_orders,
        over_tasks,
        task_table,
    )
}


def updated(text: str, study: Study) -> str:
    """Return the text with every block written anew."""
    for _, name, _ in BLOCK.findall(text):
        if name not in study.blocks:
            study.blocks[name] = BLOCKS[name](study)
    return BLOCK.sub(lambda match: match[1] + study.blocks[match[2]] + match[3], text)


if __name__ == "__main__":
    loaded = load_study()
    for path in (ROOT / name for name in TEXTS):
        path.write_text(updated(path.read_text(encoding="utf-8"), loaded), encoding="utf-8")
