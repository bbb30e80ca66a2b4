"The precision of a training on a GPU: measured once, kept, and the same in whatever goes on or repeats."
import json, math, random
from types import SimpleNamespace
import numpy as np, pytest, torch
from kills import Kill, Killed
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data
from imgstudy.records.record import read_record
from imgstudy.study.create import create_run
from imgstudy.training import learner, precision, train as training, train_stacked as stacking
from imgstudy.training.checkpoint import Checkpoint, checkpoint_file, kept_precision, kept_setting, write_checkpoint
from imgstudy.training.train_stacked import Enough

quick = dict(dataset='digits', model='lenet5', bs=32, augment='none', epochs=2, subset=700)


@pytest.fixture(autouse=True)
def bf16_by_rule(tmp_path, monkeypatch):
    "As on a card: the rule says bfloat16, and nothing is known of it."
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('IMGSTUDY_DEADLINE', raising=False)
    for module in (learner, precision): monkeypatch.setattr(module, 'rule_precision', lambda run, device: 'bf16')


@pytest.fixture(scope='module')
def dls():
    run = create_run(**quick)
    return create_dls(run, load_data(run))


def raises(error):
    def measure(*args): raise error
    return measure


@pytest.mark.parametrize('gain, chosen', [(3., 'bf16'), (1.11, 'bf16'), (1.1, 'fp32'), (.5, 'fp32')])
def test_half_precision_is_taken_if_it_gains_a_tenth(gain, chosen, dls, monkeypatch):
    monkeypatch.setattr(precision, 'precision_gain', lambda run, n: gain)
    assert precision.measured_precision(create_run(**quick), dls) == dict(precision=chosen, precision_gain=round(gain, 2))


@pytest.mark.parametrize('measure', [lambda run, n: math.nan, raises(Enough('no time')), raises(RuntimeError('CUDA out of memory.')),
                                     raises(torch.OutOfMemoryError('out of memory'))])
def test_what_cannot_be_measured_follows_the_rule_and_is_not_kept(measure, dls, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, 'precision_gain', measure)
    assert precision.measured_precision(create_run(**quick), dls) == dict(precision='bf16')
    assert not (tmp_path/'cache'/'precision.json').exists()


def test_another_error_is_not_hidden(dls, monkeypatch):
    monkeypatch.setattr(precision, 'precision_gain', raises(RuntimeError('shapes do not match')))
    with pytest.raises(RuntimeError, match='shapes'): precision.measured_precision(create_run(**quick), dls)


@pytest.mark.parametrize('other, again', [(dict(seed=3), 0), (dict(lr=.01), 0), (dict(opt='sgd'), 0), (dict(augment='basic'), 0), (dict(ema=.9), 0),
                                          (dict(epochs=9), 0), (dict(bs=16), 1), (dict(model='cnn3'), 1), (dict(size=48), 1)], ids=str)
def test_runs_of_one_network_and_shape_have_one_precision(other, again, dls, monkeypatch, tmp_path):
    "Optimisers and augmentation are compared in one precision, whatever each would gain."
    gains = iter([1.5, .7])
    monkeypatch.setattr(precision, 'precision_gain', lambda run, n: next(gains))
    said = [precision.measured_precision(create_run(**quick | options), dls) for options in (dict(), other, dict())]
    assert [s['precision'] for s in said] == ['bf16', 'fp32' if again else 'bf16', 'bf16']
    assert len(json.loads((tmp_path/'cache'/'precision.json').read_text())) == 1 + again


def test_called_and_captured_steps_have_one_precision(dls, monkeypatch):
    gains = iter([1.5, .7])
    monkeypatch.setattr(precision, 'precision_gain', lambda run, n: next(gains))
    for how in ('', 'call', 'off'):
        monkeypatch.setenv('IMGSTUDY_CAPTURE', how)
        assert precision.measured_precision(create_run(**quick), dls)['precision'] == 'bf16'


def test_a_measurement_draws_no_random_number_and_no_batch(dls):
    def drawn(): return [random.random(), np.random.rand(), torch.rand(1).item(), *dls.train.epoch()[0][:5].tolist()]
    def after(do):
        seed_everything(5)
        dls.train.rng.seed(5)
        do()
        return drawn()
    said = {}
    measured = after(lambda: said.update(precision.measured_precision(create_run(**quick), dls)))
    assert said['precision_gain'] > 0 and said['precision'] in ('bf16', 'fp32')
    assert measured == after(lambda: None)


@pytest.mark.parametrize('options', [dict(mixup=.2), dict(ema=.9, clip=1.), dict(opt='sgd', nesterov=True), dict(frozen_epochs=1), dict(augment='standard'),
                                     dict(lr_start=1e-5, patience=1), dict(tune='probe_then_all', init='run:gone', bs=16), dict(model='vit', bs=16)], ids=str)
def test_any_training_can_be_timed(options):
    "Also one that starts from weights that are elsewhere: a step takes as long from any."
    run = create_run(**quick | dict(epochs=4) | options)
    said = precision.measured_precision(run, create_dls(run, load_data(run)))
    assert said['precision_gain'] > 0


@pytest.mark.parametrize('start', [dict(), dict(init='run:gone'), dict(init='run:gone', tune='probe_then_all')], ids=str)
def test_images_are_not_opened_again(start, dls, monkeypatch):
    monkeypatch.setattr(stacking, 'create_dls', lambda *args: pytest.fail('images are opened'))
    assert precision.measured_precision(create_run(**quick, **start), dls)['precision_gain'] > 0


def test_other_loaders_than_ours_follow_the_rule(monkeypatch):
    monkeypatch.setattr(precision, 'precision_gain', lambda run, n: pytest.fail('measured'))
    assert precision.measured_precision(create_run(**quick), SimpleNamespace(device='cuda')) == dict(precision='bf16')


@pytest.mark.parametrize('asked, kind, measures', [('auto', 'cuda', True), ('auto', 'cpu', False), ('auto', 'mps', False), ('fp32', 'cuda', False),
                                                   ('fp16', 'cuda', False), ('tf32', 'cuda', False)])
def test_only_an_open_choice_on_a_gpu_is_measured(asked, kind, measures, monkeypatch):
    monkeypatch.setattr(precision, 'measured_precision', lambda run, dls: dict(precision='measured'))
    monkeypatch.setattr(learner, 'rule_precision', lambda run, device: 'bf16' if asked == 'auto' else asked)
    chosen = learner._chosen(create_run(**quick, precision=asked), SimpleNamespace(device=kind))
    assert chosen == dict(precision='measured' if measures else 'bf16' if asked == 'auto' else asked)


@pytest.mark.parametrize('tune, measures', [('probe', False), ('head', False), ('probe_then_all', True)])
def test_a_body_that_only_computes_features_is_not_timed(tune, measures, monkeypatch):
    monkeypatch.setattr(precision, 'measured_precision', lambda run, dls: dict(precision='measured'))
    run = create_run(dataset='digits', model='resnet18_tv', init='imagenet', tune=tune)
    assert learner._chosen(run, SimpleNamespace(device='cuda')) == dict(precision='measured' if measures else 'bf16')


def test_a_card_without_half_precision_has_nothing_to_measure(monkeypatch):
    monkeypatch.setattr(precision, 'measured_precision', lambda run, dls: pytest.fail('measured'))
    monkeypatch.setattr(learner, 'rule_precision', lambda run, device: 'fp32')
    assert learner._chosen(create_run(**quick), SimpleNamespace(device='cuda')) == dict(precision='fp32')


@pytest.mark.parametrize('setting, kept', [
    (dict(device='cuda', precision='fp32', precision_gain=.9), dict(precision='fp32', precision_gain=.9)), (dict(device='cuda', precision='bf16'), dict(precision='bf16')),
    (dict(device='cpu', precision='bf16'), {}), (dict(device='cuda'), {}), (dict(), {})], ids=str)
def test_the_precision_of_a_checkpoint(setting, kept, tmp_path):
    file = tmp_path/'.some.checkpoint'
    assert kept_precision(file) == {}
    write_checkpoint(dict(setting=setting, epoch=1), file)
    assert kept_precision(file) == kept


def test_a_training_and_a_stack_go_on_in_the_precision_that_they_began_with(tmp_path, monkeypatch):
    "Also if nothing is kept in the cache, and a measurement would now say otherwise."
    from_file = lambda file: kept_setting(file, 'precision', 'precision_gain') # on a CPU, too
    for module in (training, stacking): monkeypatch.setattr(module, 'kept_precision', from_file)
    runs = [create_run(**quick | dict(seed=s)) for s in range(2)]
    do = dict(alone=lambda root: [training.train(runs[0], root=root)], stack=lambda root: stacking.train_stacked(runs, root=root))
    for name, train in do.items():
        monkeypatch.setattr(learner, '_chosen', lambda run, dls: dict(precision='bf16', precision_gain=1.5))
        with monkeypatch.context() as m:
            m.setattr(Checkpoint, 'every', 0)
            for module in (training, stacking): m.setattr(module, 'event_cbs', lambda *args, **kwargs: [Kill(1)])
            with pytest.raises(Killed): train(tmp_path/name)
        whole = train(tmp_path/f'{name}_whole')
        monkeypatch.setattr(learner, '_chosen', lambda run, dls: dict(precision='fp32', precision_gain=.5))
        for a, b in zip(train(tmp_path/name), whole):
            assert b.info['cost']['resumed'] == [] and a.info['cost']['resumed'] == [1]
            assert (a.info['model']['precision'], a.info['model']['precision_gain']) == ('bf16', 1.5)
            assert a.history.drop(columns='seconds').equals(b.history.drop(columns='seconds'))


def test_a_record_has_no_gain_where_none_was_measured(tmp_path):
    assert 'precision_gain' not in training.train(create_run(**quick, precision='fp32'), root=tmp_path).info['model']
