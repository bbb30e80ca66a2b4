"What the intervals and tests promise, simulated: they hold the truth in 95 of 100 cases, and find nothing in 95 where nothing is."
import gc
import numpy as np, pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from imgstudy.records.metrics import t_interval, wilson_interval
from imgstudy.records.record import Record, pack_predictions
from imgstudy.runs import make_run
from imgstudy.stats.pairs import Basis, bootstrap_gains, compare_all, compare_pairs, holm, mcnemar_table, paired_gain
from imgstudy.stats.grid import best_cell, factor_effects
from imgstudy.stats.seeds import synth_record, validation_interval

alpha, gain = .05, .03


@pytest.fixture(autouse=True)
def quick_collections():
    "statsmodels collects garbage in every call of `multipletests`, a third of a second with torch in memory."
    gc.freeze()
    yield
    gc.unfreeze()


def near(held, times, p=1 - alpha, least=.001):
    "Whether `held` of `times` is what a share of `p` gives in all but one of a thousand test runs (and two points besides)."
    low, high = stats.binom.ppf([least/2, 1 - least/2], times, p)/times
    return low - .02 <= held/times <= high + .02


def gains(rng, seeds, images=300, differ=.06, luck=.01, gain=gain):
    "Where the second of two models is right and the first is not, less the opposite: [seeds, images]."
    a = rng.uniform(.45, .55, images)
    b = a + gain + rng.choice([-differ, differ], images)
    right = [rng.random((seeds, images)) < p + rng.normal(size=(seeds, 1))*luck/2**.5 for p in (a, b)]
    return right[1].astype(int) - right[0]


def record(right, classes=2, valid=.5, **params):
    "A record that is right on the images where `right` says so."
    n = len(right)
    target = np.arange(n) % classes
    pred = np.where(right, target, (target + 1) % classes)
    packed = pack_predictions([f'{i}.png' for i in range(n)], target, np.log(np.eye(classes)[pred]*.8 + .1))
    metrics = dict(accuracy=float(np.mean(right)))
    return Record(make_run(dataset='digits', model='lenet5', **params), 'finished', metrics, dict(best_epoch=1),
                  pd.DataFrame(dict(epoch=[1], valid_accuracy=[valid])), packed)


@pytest.mark.parametrize('p', [.1, .6, .97])
@pytest.mark.parametrize('n', [50, 400])
def test_wilson_covers(p, n):
    k = np.arange(n + 1)
    inside = [low <= p <= high for low, high in (wilson_interval(i, n) for i in k)]
    held = stats.binom.pmf(k, n, p)[inside].sum()  # exact: no simulation needed
    assert .92 < held < .985


@pytest.mark.parametrize('n', [2, 3, 10])
def test_t_interval_covers(n):
    rng, times = np.random.default_rng(n), 2000
    held = sum(low <= .8 <= high for _, low, high in (t_interval(rng.normal(.8, .02, n)) for _ in range(times)))
    assert near(held, times)


def test_folds_need_their_correction():
    "Five folds that share what they are trained on: Nadeau and Bengio's interval holds, the plain one does not."
    rng, times, held = np.random.default_rng(0), 1000, np.zeros(2)
    for _ in range(times):  # correlation 1/5 between folds, as their paper supposes
        scores = rng.normal()*.2**.5 + rng.normal(size=5)*.8**.5
        held += [abs(0 - m) <= m - low for m, low, _ in (t_interval(scores, 1/4), t_interval(scores))]
    assert near(held[0], times), held
    assert held[1]/times < .9


worlds = {'little luck': {}, 'much luck': dict(luck=.03), 'images differ': dict(differ=.4, luck=0.)}


@pytest.mark.parametrize('seeds', [1, 3, 10])
@pytest.mark.parametrize('world', worlds)
def test_bootstrap_covers(world, seeds):
    if seeds == 1 and world == 'much luck': pytest.skip('one seed says nothing of luck, and is not said to')
    rng, times = np.random.default_rng(seeds), 250
    params = worlds[world] | (dict(luck=0.) if seeds == 1 else {})
    ends = [np.quantile(bootstrap_gains([gains(rng, seeds, **params)], 400), [.025, .975]) for _ in range(times)]
    held = sum(low <= gain <= high for low, high in ends)
    assert held/times > .91, held/times
    assert near(held, times) or world == 'images differ'  # few seeds and images that differ: wider than need be


def test_bootstrap_over_folds_covers():
    rng, times = np.random.default_rng(0), 250
    ends = [np.quantile(bootstrap_gains([gains(rng, 1, 100) for _ in range(5)], 400), [.025, .975]) for _ in range(times)]
    assert sum(low <= gain <= high for low, high in ends)/times > .91


def test_more_images_narrow_what_more_seeds_cannot():
    rng = np.random.default_rng(0)
    width = lambda *shape: np.ptp(np.quantile(bootstrap_gains([gains(rng, *shape, differ=.4, luck=0.)]), [.025, .975]))
    assert width(10, 4000) < width(10, 400)/2
    assert width(40, 400) > width(10, 400)*.7


def test_p_better_is_a_probability():
    "Of two models alike, the one that the bootstrap prefers by 9 in 10 is preferred so in a tenth of the cases."
    rng = np.random.default_rng(0)
    p = np.array([np.mean(bootstrap_gains([gains(rng, 5, gain=0.)], 400) > 0) for _ in range(300)])
    assert abs(np.mean(p > .9) - .1) < .06
    assert abs(np.mean(p < .1) - .1) < .06


def test_mcnemar_keeps_its_level_and_finds():
    rng, times, found = np.random.default_rng(0), 600, {}
    for b in (.7, .8):
        right = rng.random((2, times, 300)) < np.array([.7, b])[:, None, None]
        p = [mcnemar([[0, (x & ~y).sum()], [(~x & y).sum(), 0]], exact=True).pvalue for x, y in zip(*right)]
        found[b] = np.mean(np.array(p) < alpha)
    assert found[.7] < alpha + .025 and found[.8] > .6, found
    ours = mcnemar_table([record(right[0][0], seed=0)], [record(right[1][0], seed=0)])
    assert ours.p[0] == pytest.approx(p[0])


def test_holm_keeps_the_level_of_the_family():
    rng, times = np.random.default_rng(0), 2000
    null = rng.random((times, 6))
    assert near(sum((holm(p) < alpha).any() for p in null), times, alpha)
    assert np.mean([(p < alpha).any() for p in null]) > .2, 'without it one in four families has a false finding'
    null[:, :2] = 1e-6  # two real effects: both found, and still at most 5 % false findings
    adjusted = np.array([holm(p) for p in null])
    assert (adjusted[:, :2] < alpha).all() and (adjusted[:, 2:] < alpha).any(1).mean() < alpha + .02


def groups(rng, shares, seeds=5, images=500):
    hard = rng.uniform(-.1, .1, images)
    return {k: [record(rng.random(images) < share + hard, seed=s) for s in range(seeds)] for k, share in shares.items()}


def test_a_family_of_equals_is_left_alone():
    rng, times = np.random.default_rng(0), 60
    false = [compare_all(groups(rng, dict(a=.7, b=.7, c=.7))).better.notna().any() for _ in range(times)]
    assert np.mean(false) < .17, 'binomial: more than 10 of 60 at 5 % is one in ten thousand'


def test_the_better_one_is_found():
    rng = np.random.default_rng(0)
    table = compare_all(groups(rng, dict(a=.6, b=.6, c=.8)), base='a')
    assert table.better.tolist() == [None, 'c']
    assert table.p_better['c over a'] > .99 and (table.gain['c over a'].basis, table.gain['c over a'].sign) == (Basis.agree, 1)


@pytest.mark.slow
@pytest.mark.parametrize('world', worlds)
@pytest.mark.parametrize('seeds', [3, 5, 10])
def test_bootstrap_covers_closely(world, seeds):
    rng, times = np.random.default_rng(seeds), 4000
    ends = [np.quantile(bootstrap_gains([gains(rng, seeds, 500, **worlds[world])], 1000), [.025, .975]) for _ in range(times)]
    assert .93 < sum(low <= gain <= high for low, high in ends)/times < .99


def test_says_better_of_equals_rarely():
    rng, times = np.random.default_rng(0), 150
    found = [paired_gain(*groups(rng, dict(a=.7, b=.7), seeds=3, images=200).values(), n=400) for _ in range(times)]
    assert np.mean([g.basis == Basis.agree and g.sign != 0 for g in found]) < .12


def test_factor_effects_cover():
    rng, times, held, none = np.random.default_rng(0), 120, 0, 0
    for _ in range(times):
        cells = [(lr, bs, s) for lr in (.01, .001) for bs in (64, 128) for s in range(3)]
        records = [record(rng.random(400) < .6 + .05*(lr == .001), lr=lr, bs=bs, seed=s) for lr, bs, s in cells]
        table = factor_effects(records, ['lr', 'bs'])
        held += table.low[0] <= .05 <= table.high[0]
        none += table.low[1] <= 0 <= table.high[1]
    assert near(held, times) and near(none, times), (held, none)


def test_the_best_cell_is_too_good_on_validation_only():
    "Twelve cells that are all alike: the chosen one's validation accuracy is above the truth, its test accuracy is not."
    rng, chosen = np.random.default_rng(0), []
    for _ in range(40):
        records = [record(rng.random(300) < .6, lr=lr, bs=bs, valid=rng.binomial(100, .6)/100) for lr in (.1, .01, .001) for bs in (8, 16, 32, 64)]
        chosen.append(best_cell(records, ['lr', 'bs']).iloc[0])
    assert all(c.selected and c.cells == 12 for c in chosen)
    assert np.mean([c.valid_accuracy for c in chosen]) > .65
    assert abs(np.mean([c.accuracy for c in chosen]) - .6) < .02


@pytest.mark.parametrize('hard, spread', [(.3, .004), (.3, .02), (.05, .01), (.5, .001)])
def test_a_validation_interval_holds_for_other_images_and_seeds(hard, spread):
    "Images differ in how often networks are right on them; seeds share their images, and differ by `spread`."
    rng, n, held, alone = np.random.default_rng(0), 1000, [], []
    records = [synth_record(s, .7) for s in range(3)]
    for r in records: r.info['data']['counts']['valid'] = n
    truth = .98*(1 - hard) + .2*hard
    for _ in range(400):
        easy = np.where(rng.random(n) < hard, .2, .98)
        seeds = [np.mean(rng.random(n) < easy + rng.normal(0, spread)) for _ in records]
        for r, v in zip(records, seeds): r.history['valid_accuracy'] = v
        mean, low, high, over = validation_interval(records, 'accuracy')
        ends = t_interval(seeds)[1:]
        held.append(low <= truth <= high); alone.append(ends[0] <= truth <= ends[1])
    assert over == 'seeds and images' and np.mean(held) >= .945
    assert np.mean(alone) < np.mean(held)
