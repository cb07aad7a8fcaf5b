"""How much better labels make a few-shot teacher: the third panel of fig. 7 of arXiv:2506.00910."""

from torch import Tensor

from activekd_lite.pool import LabelState
from activekd_lite.scores import accuracy_pct
from activekd_lite.teacher import Teacher, test_answers
from activekd_lite.utils.seeding import derive_seed


def few_shot_accuracies_pct(
    teacher: Teacher, state: LabelState, labels: Tensor, *, seed: int = 0
) -> list[float]:
    """Fit a teacher to what a run had labelled in each round, and measure it on the test set.

    teacher: a few-shot one, with test answers. state: of a run, at its end. labels: (M,) of the
    test set. The seeds are those with which a run of this seed fits its teacher, so a run need not
    have been taught by it: the accuracies say what its labels are worth to this teacher.
    Raises ValueError for a teacher without answers for the test set.
    """
    accuracies = []
    for round in range(int(state.labeled_round.max()) + 1):
        known = (state.labeled_round >= 0) & (state.labeled_round <= round)
        seen = LabelState(*(x.where(known, -1) for x in (state.labeled_round, state.labels)))
        answers = test_answers(teacher.fitted(seen, derive_seed(seed, "teacher", round)))
        if answers is None:
            raise ValueError("the teacher has no answers for the test set; give it test features")
        accuracies.append(accuracy_pct(answers, labels))
    return accuracies
