"""`diagnose` and the checks of claims.

For a configuration that is best on the test images alone, made-up accuracies are put into trained records: no training
of seconds has that fault for certain."""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from faults import all_found, errors, healthy, images, noise, root, trained # noqa: F401
from imgstudy.report import diagnose as dg
from imgstudy.stats.configs import others_of, siblings_of


def test_nothing_is_wrong_with_a_healthy_run(healthy):
    assert healthy.metrics['accuracy'] > .9
    assert not errors(healthy)
    assert all_found(healthy) <= {'too few seeds'}
    again = replace(healthy, run=replace(healthy.run, seed=1))
    assert dg.diagnose(healthy, siblings=[again]).empty
    assert list(dg.diagnose(healthy, siblings=[again])) == ['check', 'severity', 'evidence', 'text', 'remedy']
    assert dg.diagnosis(healthy, siblings=[again]) == 'nothing found'
    assert dg.diagnose_text(healthy, siblings=[again]).splitlines() == [healthy.id, 'nothing found']


def test_against_the_finder(trained, healthy):
    low, high = trained(opt='sgd', lr=1e-7, epochs=3), trained(opt='sgd', lr=10., epochs=4, schedule='flat')
    state, numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert [f'times {w}' in dg.against_finder(r).text for r, w in ((low, 'below'), (high, 'above'))] == [True, True]
    assert dg.against_finder(healthy) is None
    assert 'rate against the finder' in errors(low, finder=True) and 'rate against the finder' not in errors(low)
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy).all()


@pytest.mark.parametrize('copies,severity', [(0, None), (4, 'error')])
def test_leaked_test_images(trained, root, copies, severity):
    folder = noise(root/f'leaked{copies}')
    for i in range(copies): (folder/f'train/a/copy{i}.png').write_bytes((folder/f'test/a/{i:03}.png').read_bytes())
    record = trained(dataset=f'folder:{folder}', epochs=1, **images)
    assert record.info['data']['leaked'] == copies
    assert dg.diagnose(record).set_index('check').severity.get('copies of test images') == severity


def test_a_choice_by_test_images(trained):
    "Made up: the accuracies of three trained records."
    made = [trained(epochs=1, lr=lr) for lr in (1e-4, 1e-3, 1e-2)]

    def scored(record, test, valid):
        history = record.history.assign(valid_accuracy=valid)
        return replace(record, metrics=record.metrics | dict(accuracy=test), history=history)

    configs = [scored(r, t, v) for r, t, v in zip(made, (.9, .8, .7), (.7, .8, .6))]
    found = ['test images had a say' in all_found(r, others=[o for o in configs if o is not r]) for r in configs]
    assert found == [True, False, False]
    assert 'test images had a say' not in all_found(configs[0], others=configs[1:2]) # two may differ by chance
    best = [scored(configs[0], .9, .9), *configs[1:]]
    assert 'test images had a say' not in all_found(best[0], others=best[1:])
    evidence = dg.diagnose(configs[0], others=configs[1:]).set_index('check').evidence['test images had a say']
    assert (evidence.name, evidence.value, evidence.limit) == ('validation accuracy', .7, .8)


def test_too_few_seeds(trained):
    own, other = ([trained(epochs=2, lr=lr, seed=s) for s in range(3)] for lr in (2e-3, 2.1e-3))
    assert siblings_of(own[0], own + other) == own[1:] and others_of(own[0], own + other) == other
    assert 'too few seeds' in all_found(own[0]) and 'too few seeds' in errors(own[0], others=other)
    assert 'too few seeds' not in all_found(own[0], siblings=own[1:])
    assert 'too few seeds' in errors(own[0], siblings=own[1:], others=other) # hardly another rate, and three seeds
    values = [r.metrics['accuracy'] for r in own]
    half = 4.302653*np.std(values, ddof=1)/math.sqrt(3) # Student's t with 2 degrees of freedom
    claims = [.9*half, 1.1*half]
    assert ['too few seeds' in errors(own[0], siblings=own[1:], claim=c) for c in claims] == [True, False]


def test_plot(healthy, trained):
    import matplotlib.pyplot as plt
    ax = dg.plot_findings(trained(epochs=6, lr=4e-4, schedule='flat'))
    assert 'not converged' in [t.get_text() for t in ax.get_legend().get_texts()] and len(ax.patches) > 0
    plt.close('all')


def test_references_chosen_on_their_own_images():
    table = dg.chosen_references()
    assert {'cifar100_schedules', 'cifar100_deeper'} <= set(table.study)
    assert 'cats_dogs_optimizers' not in set(table.study)
