"Every option of a recipe through `train`: it runs, it is recorded, it does what it says, and the same seed gives the same bits."
import dataclasses, itertools
import numpy as np, pytest, torch
from fastai.basics import Callback
from imgstudy.training import fit as fitting
from imgstudy.data.augment import augment_levels
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.split import load_data, part_of
from imgstudy.data.loaders import create_dls, create_test_dl, norm_stats
from imgstudy.training.learner import create_learner
from imgstudy.models.register import create_model, layer_groups
from imgstudy.records.record import load_model, read_record, verify_record
from imgstudy.runs import fold_runs, make_run, run_from_dict, run_id, run_to_dict
from imgstudy.training.schedule import create_schedule
from imgstudy.training.train import train, train_all
from imgstudy.study.create import create_run

opts, schedules = ('adamw', 'adam', 'sgd'), ('one_cycle', 'cosine', 'linear', 'exponential', 'step', 'flat')
quick = dict(dataset='digits', model='lenet5', subset=100, epochs=2, size=16, precision='fp32')


@pytest.fixture(scope='module')
def data():
    "The first 50 validation and test images are enough here."
    data = load_data(create_run(**quick))
    few = data.items[data.items.split != 'train'].sample(frac=1, random_state=0).groupby('split').head(50)
    return dataclasses.replace(data, items=data.items[(data.items.split == 'train') | data.items.index.isin(few.index)].reset_index(drop=True))


def tried(data, root, **params): # a Record of a short training, read back and verified
    run = create_run(**{**quick, **params})
    record = read_record(train(run, data if data and data.part[1:] == part_of(run)[1:] else None, root).path)
    verify_record(record)
    assert record.outcome == 'finished' and record.run == run
    return record


@pytest.fixture(scope='module')
def once(data, tmp_path_factory):
    "`tried`, but no training twice."
    root, known = tmp_path_factory.mktemp('runs'), {}
    def once(**params):
        key = repr(sorted(params.items()))
        if key not in known: known[key] = tried(data, root, **params)
        return known[key]
    return once


def weights(record): return load_model(record).state_dict()
def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def watched(run, data, *cbs): # a Learner that was fitted with some more callbacks, and its History
    seed_everything(run.seed)
    learn = create_learner(run, create_dls(run, data))
    learn.add_cbs(cbs)
    return learn, fitting.fit(learn, run.recipe)


def images(*dls): return [torch.cat([x for x, _ in dl]).as_subclass(torch.Tensor) for dl in dls]


# every option by itself, and those that meet badly; model and epochs differ where the option asks for it
alone = dict(
    momentum=dict(momentum=0.8, momentum_low=0.7), lr_start=dict(lr_start=1e-4), gamma=dict(schedule='exponential', gamma=0.5),
    steps=dict(schedule='step', step_epochs=1, gamma=0.3), nesterov=dict(opt='sgd', nesterov=True), warmup=dict(schedule='cosine', warmup=1.), wd=dict(wd=0.3, decay_all=True),
    clip=dict(clip=0.1), dropout=dict(model='cnn3', dropout=0.2), label_smoothing=dict(label_smoothing=0.1), mixup=dict(mixup=0.4),
    cutmix=dict(cutmix=1.), ema=dict(ema=0.9), tta=dict(tta=2), patience=dict(patience=1, epochs=4), head=dict(tune='head'),
    gradual=dict(tune='gradual', epochs=6), frozen=dict(frozen_epochs=1), layer_decay=dict(layer_decay=0.5), bs=dict(bs=10_000),
    bicubic=dict(interpolation='bicubic', normalize='half'), bf16=dict(precision='bf16'), split_seed=dict(split_seed=3), fraction=dict(subset=0.1))
together = dict(
    ema_patience=dict(ema=0.9, patience=1, epochs=5), mixup_smoothing=dict(mixup=0.4, label_smoothing=0.1),
    gradual_decay_ema=dict(tune='gradual', layer_decay=0.5, ema=0.9, epochs=6), frozen_patience=dict(frozen_epochs=2, patience=1, epochs=3),
    warmup_step=dict(schedule='step', warmup=1., step_epochs=1, epochs=4), folds_subset=dict(folds=3, fold=1, subset=90),
    norms_frozen=dict(model='lenet5_bn', frozen_epochs=1, ema=0.9), half_step=dict(schedule='linear', warmup=0.3, epochs=1),
    one_epoch=dict(epochs=1, schedule='cosine', opt='sgd', clip=1., label_smoothing=0.1, cutmix=1., ema=0.9, tta=1, patience=1,
                   min_epochs=1, frozen_epochs=1, layer_decay=0.5, decay_all=True, warmup=0.5, bs=10_000, momentum=0.5))
options = {**alone, **together}


@pytest.mark.parametrize('opt, schedule', itertools.product(opts, schedules))
def test_every_optimiser_with_every_schedule(opt, schedule, data, tmp_path):
    "Recorded as asked; the rate that the optimiser itself had is that of the definition, for both groups."
    assert tried(data, tmp_path, opt=opt, schedule=schedule).run.recipe.schedule == schedule
    seen = []
    class Watch(Callback):
        def after_step(self): seen.append([(g['lr'], g['weight_decay'], g.get('momentum', g.get('betas', [0])[0])) for g in self.opt.opt.param_groups])
    run = create_run(**quick, opt=opt, schedule=schedule)
    watched(run, data, Watch())
    sched, n = create_schedule(run.recipe), len(seen)
    assert n == 2*(100//32)
    for i, groups in enumerate(seen):
        assert [g[1] for g in groups] == [run.recipe.wd, 0.], 'biases and norms do not decay'
        assert np.allclose([g[0] for g in groups], sched['lr'](i/n)) and np.allclose([g[2] for g in groups], sched['mom'](i/n))


@pytest.mark.parametrize('name', options)
def test_the_same_seed_gives_the_same_bits(name, data, once, tmp_path):
    a, b = once(**options[name]), tried(data, tmp_path, **options[name])
    assert same(weights(a), weights(b)) and (a.predictions['log_probs'] == b.predictions['log_probs']).all()
    assert list(a.history.train_loss) == list(b.history.train_loss)
    assert all(getattr(a.run, k, getattr(a.run.recipe, k, None)) == v for k, v in options[name].items())


def test_another_seed_gives_others(data, tmp_path):
    a, b = (tried(data, tmp_path, seed=s) for s in (0, 1))
    assert not same(weights(a), weights(b)) and list(a.predictions['path']) == list(b.predictions['path'])


@pytest.mark.parametrize('name', [n for n in options if n not in ('lr_start', 'split_seed', 'fraction', 'folds_subset', 'bicubic', 'bs')])
def test_no_option_is_without_effect(name, once):
    "Other predictions than without it, from the same seed."
    plain = {k: v for k, v in options[name].items() if k in ('model', 'epochs', 'schedule', 'opt')}
    if name in ('steps', 'gamma'): plain = dict(schedule='flat')
    a, b = once(**options[name]), once(**plain)
    assert (a.predictions['log_probs'] != b.predictions['log_probs']).any()


@pytest.mark.parametrize('level', augment_levels)
def test_every_augmentation_level(level, data, tmp_path):
    "Recorded, repeatable, and never on validation or test images."
    a, b = (tried(data, tmp_path/k, augment=level, epochs=1) for k in 'ab')
    assert same(weights(a), weights(b)) and a.run.augment == level
    seed_everything(0)
    dls, plain = (create_dls(create_run(**quick, augment=l), data) for l in (level, 'none'))
    tests = (create_test_dl(d, data) for d in (dls, plain))
    for x, y in (images(dls.valid, plain.valid), images(*tests)): assert torch.allclose(x, y, atol=1e-5)
    x, y = images(*(dls.train.new(shuffle=False, drop_last=False) for _ in range(2)))
    assert torch.equal(x, y) is (level == 'none'), 'drawn anew for each epoch'


@pytest.mark.parametrize('normalize', ['dataset', 'none', 'imagenet', 'half', 'clip', 'dpn'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_images_are_normalised_as_said(normalize, interpolation, data):
    "In training, validation and test alike; training statistics are of the training images only."
    run = create_run(**quick, normalize=normalize, interpolation=interpolation, augment='none')
    seed_everything(0)
    dls = create_dls(run, data)
    mean, std = (torch.tensor(s)[:, None, None] for s in norm_stats(normalize, data))
    for dl in (dls.train, dls.valid, create_test_dl(dls, data)):
        x = dl.one_batch()[0].cpu()*std + mean
        assert x.min() > -1e-5 and x.max() < 1 + 1e-5 and torch.allclose((x*255).round(), x*255, atol=1e-3), 'levels of 8 bits again'
    if normalize == 'dataset': assert abs(dls.train.new(shuffle=False, drop_last=False, bs=100).one_batch()[0].mean()) < 0.2


def test_interpolations_differ(data):
    x, y = (create_dls(create_run(**quick, interpolation=i, augment='none'), data).valid.one_batch()[0] for i in ('bilinear', 'bicubic'))
    assert not torch.equal(x, y)


# early stopping

class Keep(Callback):
    "The weights that each epoch was validated with, and its accuracy."
    order = 56 # after EarlyStop
    def before_fit(self): self.kept = []
    def after_validate(self): self.kept.append((self.recorder.log[-1], {k: v.detach().clone() for k, v in self.model.state_dict().items()}))


@pytest.mark.parametrize('extra', [{}, dict(ema=0.8), dict(mixup=0.3), dict(frozen_epochs=1), dict(tune='gradual'), dict(model='lenet5_bn', ema=0.8)])
@pytest.mark.parametrize('patience, min_epochs', [(1, None), (2, 5)])
def test_early_stopping_keeps_the_best_epoch(patience, min_epochs, extra, data, tmp_path):
    "The stop comes when the definition says; recorded are the first best epoch, its weights and its predictions."
    params = dict(patience=patience, min_epochs=min_epochs, epochs=9, lr=0.02, schedule='flat', augment='none') | extra
    run = create_run(**{**quick, **params})
    keep = Keep()
    learn, history = watched(run, data, keep)
    accs = [a for a, _ in keep.kept]
    best = lambda n: int(np.argmax(accs[:n])) + 1
    total = 9 + (run.recipe.frozen_epochs or 0)
    end = next((n for n in range(min_epochs or 1, len(accs) + 1) if n - best(n) >= patience), total)
    assert len(accs) == len(history.rows) == end and history.best_epoch == best(end)
    assert same(learn.model.state_dict(), keep.kept[history.best_epoch - 1][1])
    record = tried(data, tmp_path, **params)
    assert record.info['best_epoch'] == history.best_epoch and len(record.history) == end
    assert record.history.valid_accuracy.idxmax() + 1 == history.best_epoch
    assert same(weights(record), keep.kept[history.best_epoch - 1][1])


@pytest.mark.parametrize('name', ['ema_patience', 'gradual_decay_ema', 'norms_frozen', 'mixup_smoothing', 'dropout', 'head'])
def test_recorded_weights_give_the_recorded_predictions(name, data, once):
    "In evaluation mode, without augmentation, with the normalisation of the training images."
    record = once(**options[name])
    x, y = zip(*create_test_dl(create_dls(record.run, data), data))
    with torch.no_grad(): log_probs = load_model(record)(torch.cat(x).as_subclass(torch.Tensor).cpu()).log_softmax(1).numpy()
    assert np.allclose(log_probs, record.predictions['log_probs'].astype(np.float32), atol=2e-2, rtol=1e-3)
    assert (torch.cat(y).cpu().numpy() == record.predictions['target']).all()
    assert list(record.predictions['path']) == list(data.of('test').path)


def test_the_average_is_that_of_its_definition(data):
    "decay min(d, 1 - (1 + n)^(-2/3)) at the step n after the first, which sets it."
    states = []
    class Watch(Callback):
        order = 59
        def after_step(self): states.append({k: v.detach().clone() for k, v in self.model.state_dict().items()})
    learn, _ = watched(create_run(**quick, ema=0.7), data, Watch())
    average = states[0]
    for n, state in enumerate(states[1:], 1):
        d = min(0.7, 1 - (1 + n)**(-2/3))
        average = {k: d*average[k] + (1 - d)*state[k] for k in state}
    assert all(torch.allclose(v.cpu(), average[k].cpu(), atol=1e-5) for k, v in learn.model.state_dict().items())


# layers

still = [{}, dict(ema=0.9), dict(wd=0.5, opt='adam'), dict(opt='sgd', momentum=0.9), dict(decay_all=True), dict(clip=0.1)]

@pytest.mark.parametrize('model, extra', [('lenet5_bn', e) for e in still] + [('resnet18_32', dict(ema=0.9, decay_all=True))])
def test_frozen_layers_do_not_move(model, extra, data):
    "Neither weights nor running statistics, whatever the optimiser and its decay."
    run = create_run(**{**quick, 'model': model, 'subset': 40 if model == 'resnet18_32' else 100, 'tune': 'head', 'epochs': 1 if model == 'resnet18_32' else 2, **extra})
    seed_everything(0)
    learn = create_learner(run, create_dls(run, data if run.subset == 100 else load_data(run)))
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    fitting.fit(learn, run.recipe)
    head = set(layer_groups(learn.model)[-1])
    moved = {k for k, v in learn.model.state_dict().items() if not torch.equal(v.cpu(), before[k].cpu())}
    assert moved == head


def test_layers_wake_one_after_another(data):
    "tune='gradual': in epoch n the last n layer groups of lenet5_bn change, the others not at all."
    run = create_run(**{**quick, 'model': 'lenet5_bn', 'tune': 'gradual', 'epochs': 9})
    states = []
    class Watch(Callback):
        def before_fit(self): self.after_epoch()
        def after_epoch(self): states.append({k: v.detach().clone() for k, v in self.model.state_dict().items()})
    learn, _ = watched(run, data, Watch())
    groups = layer_groups(learn.model)
    for n, (a, b) in enumerate(itertools.pairwise(states), 1):
        moved = [any(not torch.equal(a[k], b[k]) for k in g) for g in groups]
        assert moved == [i >= len(groups) - n for i in range(len(groups))]


def test_each_layer_group_has_its_rate_and_decay(data):
    seen = []
    class Watch(Callback):
        def after_step(self): seen.append({id(p): (g['lr'], g['weight_decay']) for g in self.opt.opt.param_groups for p in g['params']})
    run = create_run(**quick, layer_decay=0.5, schedule='flat', wd=0.2)
    learn, _ = watched(run, data, Watch())
    params, groups = dict(learn.model.named_parameters()), layer_groups(learn.model)
    for depth, names in enumerate(groups):
        for n in names: assert np.allclose(seen[-1][id(params[n])], (run.recipe.lr*0.5**(len(groups) - 1 - depth), 0.2*(params[n].ndim > 1)))


def test_the_gradient_is_clipped(data):
    norms = []
    class Watch(Callback):
        order = 99
        def before_step(self): norms.append(float(torch.stack([p.grad.norm() for p in self.model.parameters()]).norm()))
    watched(create_run(**quick, clip=0.05), data, Watch())
    assert max(norms) <= 0.05*1.0001


# folds

def test_five_folds_test_each_image_once(tmp_path):
    "Stratified, repeatable, disjoint from what they train and validate on, and the same for every model and seed."
    runs = fold_runs(create_run(**{**quick, 'epochs': 1, 'folds': 5}))
    records = train_all(runs, root=tmp_path)
    paths = np.concatenate([r.predictions['path'] for r in records])
    assert len(paths) == len(set(paths)) == 1797
    shares = np.array([np.bincount(r.predictions['target'], minlength=10) for r in records])
    assert np.ptp(shares, axis=0).max() <= 1, 'as many of a class in each fold'
    for run in runs:
        parts = load_data(run).items.groupby('split').path.apply(set)
        assert sum(map(len, parts)) == len(set.union(*parts)) and len(parts['train']) == 100
    other = load_data(create_run(**{**quick, 'model': 'cnn3', 'seed': 5, 'folds': 5, 'fold': 2}))
    assert sorted(other.of('test').path) == sorted(records[2].predictions['path'])
    for r in records: verify_record(read_record(r.path))


# records

def test_a_record_survives(data, tmp_path):
    "Every field that is not a default is read back, and its id is that of the folder."
    run = create_run(**{**quick, **together['one_epoch'], 'normalize': 'half', 'interpolation': 'bicubic', 'seed': 11})
    record = train(run, data, tmp_path)
    again = read_record(record.path)
    assert again.run == run == run_from_dict(run_to_dict(run)) and again.path.name == run_id(run)
    assert again.metrics == record.metrics and again.info['model'] == record.info['model']
    assert all((again.predictions[k] == v).all() for k, v in record.predictions.items())
    assert np.allclose(again.history, record.history, equal_nan=True)
    again.metrics['accuracy'] += 0.01
    with pytest.raises(StudyError, match='accuracy is recorded as'): verify_record(again)


def test_a_run_that_diverges_is_no_result(data, tmp_path):
    with pytest.raises(StudyError, match='Lower the peak rate'): tried(data, tmp_path, lr=1e12, opt='sgd', schedule='flat', clip=None)
    (folder,) = tmp_path.iterdir()
    assert read_record(folder).outcome == 'failed' and not (folder/'weights.safetensors').exists()


@pytest.mark.parametrize('params, message', [
    (dict(mixup=0.2, cutmix=1.), '`mixup` and `cutmix`'), (dict(min_epochs=3, patience=1), '`min_epochs` 3 is more'),
    (dict(min_epochs=1), 'no effect without `patience`'), (dict(gamma=0.5), "belongs to schedule='exponential' or 'step'"),
    (dict(step_epochs=1, schedule='cosine'), "belongs to schedule='step'"), (dict(lr_start=1e-3, schedule='flat'), 'one_cycle'),
    (dict(momentum_low=0.5, schedule='cosine'), 'one_cycle'), (dict(warmup=1.), 'not for one_cycle'),
    (dict(warmup=2., schedule='cosine'), 'shorter than the training'), (dict(frozen_epochs=1, tune='head'), '`frozen_epochs` come before'),
    (dict(tta=2, augment='none'), '`tta` averages'), (dict(dropout=0.1), 'lenet5 takes no dropout'), (dict(fold=0), 'no effect without `folds`'),
    (dict(folds=5, fold=5), 'counts from 0'), (dict(ema=1.), 'less than 1'), (dict(epochs=0), 'greater than or equal to 1'),
    (dict(patience=True), '`patience` must be a valid integer'), (dict(lr=float('nan')), '`lr`'), (dict(tta=0), '`tta`'),
    (dict(label_smoothing=1.), 'less than 1'), (dict(layer_decay=0.), '`layer_decay`'), (dict(augment='heavy'), 'augmentation level'),
    (dict(size=15), 'at least 16 pixels'), (dict(opt='adamax'), "'adamw', 'adam' or 'sgd'")])
def test_options_that_contradict_each_other(params, message):
    with pytest.raises(StudyError) as e: create_run(**{**quick, **params})
    assert message in str(e.value)
