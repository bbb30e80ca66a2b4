"""Each check of `diagnose` on a training that was made to have the fault, and none on a healthy one.

All is trained on scikit-learn's digits or on drawn images, in seconds. Two faults are written into a trained record, because no training of
seconds has them for certain: siblings that are stuck, and a way to train that is best on the test images alone."""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from imgstudy.report import checks, diagnose as dg
from imgstudy.core import StudyError
from imgstudy.data.split import load_data
from imgstudy.models.register import create_model, models
from imgstudy.records.record import Record, read_record
from imgstudy.runs import run_id
from imgstudy.stats.configs import others_of, siblings_of
from imgstudy.training.train import train
from imgstudy.study.create import create_run
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

small = dict(dataset='digits', model='lenet5', size=16, augment='none', precision='fp32', bs=25, subset=200)


@pytest.fixture(scope='module')
def root(tmp_path_factory): return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def trained(root):
    "Trains a run of digits on few images, with the first hundred that validate and test; no training twice."
    known, parts = {}, {}

    def data_of(run):
        if run.subset not in parts:
            data = load_data(run)
            few = data.items[data.items.split != 'train'].sample(frac=1, random_state=0).groupby('split').head(100)
            kept = (data.items.split == 'train') | data.items.index.isin(few.index)
            parts[run.subset] = replace(data, items=data.items[kept].reset_index(drop=True))
        return parts[run.subset]

    def trained(**params):
        run = create_run(**{**small, **params})
        if run not in known: known[run] = read_record(train(run, data_of(run) if run.dataset == 'digits' else None, root).path)
        return known[run]
    return trained


@pytest.fixture(scope='module')
def healthy(trained): return trained(subset=600, epochs=10, lr=5e-3)


def wrong(record, **given): # names of what is likely wrong
    table = dg.diagnose(record, **given)
    return set(table.check[table.severity == 'error'])


def all_found(record, **given): return set(dg.diagnose(record, **given).check)


def test_nothing_is_wrong_with_a_healthy_run(healthy):
    assert healthy.metrics['accuracy'] > .9
    assert not wrong(healthy)
    assert all_found(healthy) <= {'too few seeds'}
    again = replace(healthy, run=replace(healthy.run, seed=1))
    assert dg.diagnose(healthy, siblings=[again]).empty
    assert list(dg.diagnose(healthy, siblings=[again])) == ['check', 'severity', 'says', 'fix']
    assert dg.diagnosis(healthy, siblings=[again]) == 'nothing found'
    assert dg.diagnose_text(healthy, siblings=[again]).splitlines() == [healthy.id, 'nothing found']


@pytest.mark.parametrize('params', [dict(opt='sgd', lr=1e-7, epochs=3), dict(opt='sgd', lr=1e-4, epochs=5, schedule='flat'),
                                    dict(lr=1e-7, epochs=3), dict(opt='sgd', lr=1e-3, epochs=4, schedule='cosine')], ids=str)
def test_rate_too_low(trained, params):
    record = trained(**params)
    assert 'rate too low' in wrong(record)
    assert not {'rate too high', 'learns nothing', 'overfits', 'batch norm drifts'} & all_found(record)


@pytest.mark.parametrize('params', [dict(opt='sgd', lr=10., epochs=4, schedule='flat'), dict(lr=.3, epochs=5, schedule='flat'), dict(lr=1., epochs=4)], ids=str)
def test_rate_too_high(trained, params):
    record = trained(**params)
    assert 'rate too high' in wrong(record)
    assert 'rate too low' not in all_found(record)


def test_a_failed_run_is_diagnosed_from_its_error(trained, root):
    params = dict(opt='sgd', lr=1e8, model='lenet5_bn', epochs=2)
    with pytest.raises(StudyError): trained(**params)
    record = read_record(root/run_id(create_run(**small | params)))
    assert record.outcome == 'failed' and wrong(record) == {'diverged'}
    table = dg.diagnose(record)
    assert 'The loss became' in table.says[0] and 'Lower the peak rate' in table.fix[0]
    other = Record(record.run, 'failed', error='OSError: disk')
    assert 'Mend what the error names' in dg.diagnose(other, siblings=[record], others=[record], claim=.1).fix[0]
    assert dg.diagnose(Record(record.run, 'failed')).says[0] == 'It failed: unknown'


def test_a_sibling_that_died(healthy, trained):
    "Written: the sibling's run is that of the healthy training."
    dead = trained(opt='sgd', lr=10., epochs=4, schedule='flat')
    sibling = replace(dead, run=replace(healthy.run, seed=7))
    assert 'rate too high' in wrong(healthy, siblings=[sibling])
    assert 'seed 7' in dg.diagnose(healthy, siblings=[sibling]).says[0]


def test_against_the_finder(trained, healthy):
    state, numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    low, high = trained(opt='sgd', lr=1e-7, epochs=3), trained(opt='sgd', lr=10., epochs=4, schedule='flat')
    assert [f'times {w}' in dg.against_finder(r).says for r, w in ((low, 'below'), (high, 'above'))] == [True, True]
    assert dg.against_finder(healthy) is None
    assert 'rate against the finder' in wrong(low, finder=True) and 'rate against the finder' not in wrong(low)
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy).all()


def test_imagenet_stem(trained):
    record = trained(size=32, subset=50, epochs=1, bs=50, model='mobilenetv2', normalize='dataset')
    assert 'ImageNet stem' in wrong(record) and 'ImageNet stem' in wrong(replace(record, run=replace(record.run, model='resnet18')))
    assert 'mobilenetv2_32' in dg.diagnose(record).set_index('check').fix['ImageNet stem']
    for model, size in (('resnet18_32', 32), ('resnet18', 224), ('mobilenetv2_32', 32)):
        assert checks.imagenet_stem(replace(record, run=replace(record.run, model=model, size=size))) is None


def test_every_small_model_is_fit_for_its_own_size():
    for name, spec in [(n, s) for n, s in models.items() if s.size <= 64]:
        net = checks._light(name, 10, spec.size, None)
        n, _, stem = checks.starved(net, spec.size)
        assert not n or stem < 2, name


@pytest.mark.parametrize('normalize,severity', [('none', 'error'), ('imagenet', None)])
def test_wrong_normalisation(trained, root, normalize, severity):
    "Random weights in a file do: what they want is what the register says of their model."
    file = root/'mobilenet.safetensors'
    if not file.exists(): save_file({k: v.contiguous() for k, v in create_model('mobilenetv2_32', 7).state_dict().items()}, file)
    record = trained(model='mobilenetv2_32', init=f'file:{file}', normalize=normalize, subset=50, epochs=1, bs=50)
    found = dg.diagnose(record).set_index('check').severity
    assert found.get('normalisation') == severity


def test_normalisation_of_a_run_that_weights_came_from(trained, root):
    source = trained(subset=50, epochs=1, normalize='half')
    tuned = [trained(subset=50, epochs=1, init=f'run:{source.id}', normalize=n) for n in ('half', 'none')]
    assert [('normalisation' in wrong(r)) for r in tuned] == [False, True]
    lost = replace(tuned[1], path=root/'elsewhere'/'x')
    assert checks.wrong_normalisation(lost) is None


def test_batch_norm_drifts(trained):
    "A small network with batch norm in every block, at a high rate: few steps, and the running statistics are left behind."
    record = trained(model='timm:test_efficientnet', size=32, normalize='dataset', subset=100, lr=1e-2, epochs=8, schedule='flat')
    assert record.history.train_loss.iloc[-1] < .3 and record.history.valid_loss.max() > 5
    found = dg.diagnose(record).set_index('check').says
    assert 'running statistics' in found['batch norm drifts'] and 'overfits' not in found
    assert 'batch norm drifts' not in all_found(trained(model='lenet5_bn', epochs=10, lr=3e-3))


def test_not_converged(trained):
    assert 'not converged' in all_found(short := trained(epochs=1, lr=1e-4))
    assert 'A single epoch' in ' '.join(dg.diagnose(short).says)
    record = trained(epochs=6, lr=4e-4, schedule='flat')
    assert 'not converged' in wrong(record)
    assert 'not converged' not in all_found(trained(epochs=12, lr=3e-3, schedule='flat', subset=600))


def test_underfits(trained):
    record = trained(epochs=3, lr=2e-3)
    assert 'underfits' in all_found(record) and 'overfits' not in all_found(record)


def noise(root, n=40, change=lambda rng: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)):
    "A folder of `n` images in each of two classes, in which there is nothing to learn."
    rng = np.random.default_rng(0)
    for split, k in (('train', n), ('test', n//2)):
        for c in 'ab':
            (root/split/c).mkdir(parents=True)
            for i in range(k):
                mark = PngInfo()
                mark.add_text('name', f'{split}{c}{i}') # other bytes, whatever the pixels are
                Image.fromarray(change(rng)).save(root/split/c/f'{i:03}.png', pnginfo=mark)
    return root


images = dict(subset=None, bs=16)


def test_overfits(trained, root):
    "Learnt by heart: images of noise."
    folder = noise(root/'noise')
    record = trained(dataset=f'folder:{folder}', epochs=25, lr=3e-3, schedule='flat', **images)
    assert record.history.train_loss.iloc[-1] < .3 and 'overfits' in wrong(record)
    few = trained(subset=30, epochs=30, bs=10)
    assert 'overfits' in all_found(few)


def test_learns_nothing(trained, root):
    "Images that are all the same, at a rate that is right."
    folder = noise(root/'grey', change=lambda rng: np.full((16, 16, 3), 99, dtype=np.uint8))
    record = trained(dataset=f'folder:{folder}', epochs=6, lr=1e-3, **images)
    assert 'learns nothing' in wrong(record)
    assert not {'rate too low', 'rate too high'} & all_found(record)


def test_l2_in_adam(trained):
    assert 'L2 in Adam' in wrong(trained(opt='adam', wd=1., epochs=4))
    mild = dg.diagnose(trained(opt='adam', wd=1e-3, epochs=4)).set_index('check').severity
    assert mild['L2 in Adam'] == 'warning'
    assert 'L2 in Adam' not in all_found(trained(opt='adamw', wd=1., epochs=4))


def test_one_answer_for_everything(trained):
    assert 'classes never answered' in wrong(trained(opt='sgd', lr=10., epochs=4, schedule='flat'))


@pytest.mark.parametrize('copies,severity', [(0, None), (4, 'error')])
def test_leaked_test_images(trained, root, copies, severity):
    folder = noise(root/f'leaked{copies}')
    for i in range(copies): (folder/f'train/a/copy{i}.png').write_bytes((folder/f'test/a/{i:03}.png').read_bytes())
    record = trained(dataset=f'folder:{folder}', epochs=1, **images)
    assert record.info['data']['leaked'] == copies
    assert dg.diagnose(record).set_index('check').severity.get('test images had a say') == severity


def test_a_choice_by_test_images(trained):
    "Written: accuracies of three trained records."
    made = [trained(epochs=1, lr=lr) for lr in (1e-4, 1e-3, 1e-2)]
    def said(record, test, valid): return replace(record, metrics=record.metrics | dict(accuracy=test), history=record.history.assign(valid_accuracy=valid))
    ways = [said(r, t, v) for r, t, v in zip(made, (.9, .8, .7), (.7, .8, .6))]
    found = ['test images had a say' in all_found(r, others=[o for o in ways if o is not r]) for r in ways]
    assert found == [True, False, False]
    assert 'test images had a say' not in all_found(ways[0], others=ways[1:2]) # two may differ by accident
    best = [said(ways[0], .9, .9), *ways[1:]]
    assert 'test images had a say' not in all_found(best[0], others=best[1:])


def test_too_few_seeds(trained):
    own, other = ([trained(epochs=2, lr=lr, seed=s) for s in range(3)] for lr in (2e-3, 2.1e-3))
    assert siblings_of(own[0], own + other) == own[1:] and others_of(own[0], own + other) == other
    assert 'too few seeds' in all_found(own[0]) and 'too few seeds' in wrong(own[0], others=other)
    assert 'too few seeds' not in all_found(own[0], siblings=own[1:])
    assert 'too few seeds' in wrong(own[0], siblings=own[1:], others=other) # hardly another rate, and three seeds
    values = [r.metrics['accuracy'] for r in own]
    half = 4.302653*np.std(values, ddof=1)/math.sqrt(3) # Student's t with 2 degrees of freedom
    assert ['too few seeds' in wrong(own[0], siblings=own[1:], claim=c*half) for c in (.9, 1.1)] == [True, False]


def test_early_stopping_goes_back(trained, root):
    "What is kept is the best epoch, so that nothing is overfitted any more."
    record = trained(dataset=f'folder:{root}/noise', epochs=25, lr=3e-3, schedule='flat', patience=2, **images)
    assert not any('rose to' in s for s in dg.diagnose(record).says)


def test_without_predictions_or_a_known_model(healthy):
    bare = replace(healthy, predictions={})
    assert checks.chance_loss(bare) == pytest.approx(math.log(10))
    assert not wrong(bare)
    gone = replace(healthy, run=replace(healthy.run, model='no_such_model'))
    assert not wrong(gone)


def test_mixed_images_hide_the_training_loss(trained):
    assert 'overfits' not in all_found(trained(epochs=4, mixup=.4))


def test_plot(healthy, trained):
    import matplotlib.pyplot as plt
    ax = dg.plot_findings(trained(epochs=6, lr=4e-4, schedule='flat'))
    assert 'not converged' in [t.get_text() for t in ax.get_legend().get_texts()] and len(ax.patches) > 0
    plt.close('all')


def test_references_chosen_on_their_own_images():
    table = dg.chosen_references()
    assert {'cifar100_schedules', 'cifar100_deeper'} <= set(table.study) and 'cats_dogs_optimizers' not in set(table.study)
