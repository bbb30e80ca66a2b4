"What a fastai user does to a Learner of ours does what it does to a plain one: freezing, slices of rates, replaced parts, callbacks."
import copy, math
import pytest, torch
from fastai.basics import (Callback, CancelBatchException, CancelEpochException, CancelValidException, CrossEntropyLossFlat, Learner,
                           OptimWrapper, accuracy)
from fastai.callback.schedule import lr_find # patches Learner
from fastai.callback.tracker import ReduceLROnPlateau, SaveModelCallback
from fastai.optimizer import Adam
from fastai.vision.all import ImageDataLoaders, Resize
from functools import partial
from torch import nn
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.loaders import create_dls
from imgstudy.data.split import load_data
from imgstudy.models.register import layer_groups
from imgstudy.study.create import create_run
from imgstudy.training.fit import find_lr, fit
from imgstudy.training.learner import create_learner, layer_params
from test_as_fastai import photos

quick = dict(dataset='digits', model='lenet5', epochs=2, augment='none', precision='fp32', bs=64, subset=256)


def made(**options):
    run = create_run(**quick | options)
    seed_everything(0)
    learn = create_learner(run, create_dls(run, load_data(run)))
    learn.create_mbar = False
    learn.remove_cbs([cb for cb in learn.cbs if cb.name == 'progress'])
    learn.logger = lambda *_: None
    return run, learn


def moved(learn, before): return {k for k, p in learn.model.named_parameters() if not torch.equal(p, before[k])}


def weights(learn): return {k: p.detach().clone() for k, p in learn.model.named_parameters()}


def plain(learn, recipe):
    "A plain fastai Learner of the same network, images and optimiser, whose splitter gives the same layers."
    split = lambda m: [[p for p in layer] for layer in layer_params(m)]
    opts = dict(adamw=torch.optim.AdamW, sgd=partial(torch.optim.SGD, momentum=.9))
    return Learner(learn.dls, copy.deepcopy(learn.model), loss_func=CrossEntropyLossFlat(), metrics=accuracy, splitter=split, lr=recipe.lr,
                   opt_func=partial(OptimWrapper, opt=opts[recipe.opt]), wd=0., train_bn=False, cbs=[])


ways = dict(
    freeze=lambda l: (l.freeze(), l.fit(1)),
    freeze_to=lambda l: (l.freeze_to(2), l.fit(1)),
    unfreeze=lambda l: (l.freeze(), l.fit(1), l.unfreeze(), l.fit(1)),
    fine_tune=lambda l: l.fine_tune(1, 1e-2),
    slice=lambda l: l.fit_one_cycle(1, slice(1e-5, 1e-2)),
    one_end=lambda l: l.fit(1, slice(1e-2)),
    a_rate_per_layer=lambda l: l.fit(1, [1e-5, 1e-4, 1e-3, 1e-2, 2e-2]),
    after_a_fit=lambda l: (l.fit(1), l.fit_one_cycle(1, slice(1e-5, 1e-2))),
    flat_cos=lambda l: l.fit_flat_cos(1, slice(1e-4, 1e-2)))

@pytest.mark.parametrize('opt', ['adamw', 'sgd'])
@pytest.mark.parametrize('way', ways)
def test_layers_are_those_of_a_plain_learner(way, opt):
    "The same weights as in fastai, whose optimiser has a parameter group per layer."
    run, learn = made(opt=opt, wd=0.)
    theirs = plain(learn, run.recipe)
    with theirs.no_bar(), theirs.no_logging():
        for l in (learn, theirs):
            seed_everything(1)
            l.dls.train.rng.seed(1)
            ways[way](l)
    for (k, a), b in zip(learn.model.named_parameters(), theirs.model.parameters()): assert torch.allclose(a, b, atol=2e-5), k


@pytest.mark.parametrize('options', [{}, dict(layer_decay=.7), dict(tune='head'), dict(frozen_epochs=1), dict(decay_all=True)], ids=str)
@pytest.mark.parametrize('model', ['lenet5', 'cnn3', 'resnet9', 'convnext', 'vit', 'efficientnet_lite0'])
def test_freeze_trains_the_head_alone(model, options):
    run, learn = made(model=model, subset=64, **(dict(size=32) if model == 'efficientnet_lite0' else {}), **options)
    head = set(layer_groups(learn.model)[-1])
    learn.freeze()
    before = weights(learn)
    learn.fit(1)
    assert {k for k, p in learn.model.named_parameters() if p.requires_grad} == head and moved(learn, before) == head
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())


def test_what_has_no_weight_decay_keeps_none_whatever_the_groups():
    run, learn = made(wd=.3)
    seen = lambda: {(g.decays, pg['weight_decay']) for g, pg in zip(learn.groups, learn.opt.opt.param_groups)}
    learn.fit(1)
    assert len(learn.groups) == 2 and seen() == {(True, .3), (False, 0.)}
    learn.fit(1, wd=.2)
    assert seen() == {(True, .2), (False, 0.)}
    state = {id(p): s['exp_avg'].clone() for p, s in learn.opt.opt.state.items()}
    learn.opt.split()
    assert len(learn.groups) == 10 == len(learn.opt.opt.param_groups) and seen() == {(True, .2), (False, 0.)}
    assert all(torch.equal(learn.opt.opt.state[p]['exp_avg'], state[id(p)]) for p in learn.model.parameters())
    learn.fit(1, slice(1e-4, 1e-2))
    assert seen() == {(True, .3), (False, 0.)} and len({pg['lr'] for pg in learn.opt.opt.param_groups}) == 5
    with pytest.raises(StudyError, match='3 values of lr were given for 5 layers'): learn.fit(1, [1e-3]*3)


def test_a_saved_state_of_split_layers_is_loaded(tmp_path):
    _, learn = made()
    learn.path = tmp_path
    learn.fine_tune(1)
    learn.save('here')
    _, other = made()
    other.path = tmp_path
    other.load('here')
    assert len(other.groups) == 10
    assert all(torch.equal(a['exp_avg'], b['exp_avg']) for a, b in zip(learn.opt.opt.state.values(), other.opt.opt.state.values()))


def flat(): return nn.Sequential(nn.Flatten(), nn.Linear(3*32*32, 10))
changes = dict(
    network=lambda l: setattr(l, 'model', flat()),
    copy=lambda l: setattr(l, 'model', copy.deepcopy(l.model)),
    wrapped=lambda l: setattr(l, 'model', nn.Sequential(l.model, nn.Linear(10, 10))),
    head=None)

@pytest.mark.parametrize('train', [lambda l, r: fit(l, r), lambda l, r: l.fit(1), lambda l, r: l.fine_tune(1)], ids=['fit', 'learn.fit', 'fine_tune'])
@pytest.mark.parametrize('change', changes)
def test_what_is_replaced_before_the_first_training_is_trained(change, train):
    run, learn = made()
    if change == 'head':
        part = list(layer_groups(learn.model)[-1])[0].rpartition('.')[0]
        parent, _, name = part.rpartition('.')
        setattr(learn.model.get_submodule(parent), name, nn.Linear(learn.model.get_submodule(part).in_features, 10))
    else: changes[change](learn)
    before = weights(learn)
    train(learn, run.recipe)
    assert moved(learn, before) == set(before)


def test_a_network_replaced_after_its_optimiser_was_made_is_told():
    _, learn = made()
    learn.fit(1)
    learn.model = flat()
    with pytest.raises(StudyError, match='learn.create_opt'): learn.freeze()
    learn.create_opt()
    learn.freeze()


@pytest.mark.parametrize('way', [lambda l, r: l.fit(1), lambda l, r: l.fine_tune(1), lambda l, r: fit(l, r)], ids=['fit', 'fine_tune', 'ours'])
def test_an_optimiser_and_a_splitter_of_ones_own(way):
    run, learn = made()
    learn.opt_func = Adam
    before = weights(learn)
    way(learn, run.recipe)
    assert moved(learn, before) == set(before) and len(learn.opt.hypers) == 5

    run, learn = made(wd=.3)
    head = {id(p) for p in layer_params(learn.model)[-1]}
    learn.splitter = lambda m: [[p for p in m.parameters() if (id(p) in head) is last] for last in (False, True)]
    learn.freeze()
    assert {id(p) for p in learn.model.parameters() if p.requires_grad} == head
    learn.unfreeze()
    way(learn, run.recipe)
    assert {(id(p) in head, p.ndim > 1, pg['weight_decay']) for pg in learn.opt.opt.param_groups for p in pg['params']} == {
        (h, d, .3*d) for h in (True, False) for d in (True, False)}


def test_a_callback_is_heard_whatever_had_its_place_in_memory():
    class Quiet(Callback):
        def after_fit(self): pass
    class Count(Callback):
        n = 0
        def after_batch(self): self.n += 1
    _, learn = made()
    for _ in range(12):
        learn.fit(1, cbs=Quiet())
        count = Count()
        learn.fit(1, cbs=count)
        assert count.n > 0
    def late(self): self.late = True
    Count.before_batch = late # as when a cell is run again
    learn.fit(1, cbs=count)
    assert count.late


def test_a_plateau_reduces_the_rate():
    _, learn = made(lr=1e-3)
    cb = ReduceLROnPlateau(min_delta=9.)
    learn.fit(3, cbs=cb)
    assert learn.opt.hypers[-1]['lr'] == pytest.approx(1e-5) and {pg['lr'] for pg in learn.opt.opt.param_groups} == {learn.opt.hypers[0]['lr']}
    learn.opt.hypers[0]['mom'] = .5
    assert learn.opt.opt.param_groups[0]['betas'] == (.5, .999)


of_learner = dict(opt='sgd', wd=.2, decay_all=True, label_smoothing=.3, class_weights='balanced', bs=32, dropout=.1)
@pytest.mark.parametrize('name', of_learner)
def test_a_recipe_that_is_not_the_learners_is_told(name):
    run, learn = made(model='cnn3')
    other = create_run(**quick | {'model': 'cnn3', name: of_learner[name]})
    before = weights(learn)
    with pytest.raises(StudyError, match=f'not that of the learner.*{name} is'): fit(learn, other.recipe)
    assert not moved(learn, before)


@pytest.mark.parametrize('options, free', [(dict(tune='head'), 2), (dict(frozen_epochs=1, epochs=1), 10), (dict(epochs=1, schedule='flat', lr=1e-3), 10)], ids=str)
def test_a_recipe_may_differ_in_what_fit_decides(options, free):
    _, learn = made()
    before = weights(learn)
    fit(learn, create_run(**quick | options).recipe, cbs=None)
    assert len(moved(learn, before)) == free


@pytest.mark.parametrize('learn, recipe, says', [
    (lambda: Learner(made()[1].dls, flat(), loss_func=CrossEntropyLossFlat()), lambda r: r, 'what `create_learner` returns'),
    (lambda: made()[1], lambda r: 3, 'takes a recipe')], ids=['plain', 'epochs'])
def test_what_fit_does_not_take_is_told(learn, recipe, says):
    with pytest.raises(StudyError, match=says): fit(learn(), recipe(made()[0].recipe))


class At(Callback):
    "Raise `error` at an event of the epoch `when`, in training; after the Recorder, which fails in fastai too if it is cancelled before."
    order = 51
    def __init__(self, event, error, when, batch=None):
        self.when, self.batch, self.raised = when, batch, error
        setattr(self, event, self.cancel)
    def cancel(self):
        here = self.batch is None or self.training and self.batch == self.iter
        if self.epoch == self.when and here: raise self.raised

@pytest.mark.parametrize('when', [0, 1])
@pytest.mark.parametrize('event, error, batch, train, valid', [
    ('before_epoch', CancelEpochException, None, False, False), ('after_batch', CancelEpochException, 1, True, False),
    ('before_batch', CancelBatchException, 0, True, True), ('before_validate', CancelValidException, None, True, False)])
def test_a_row_holds_what_was_measured(event, error, batch, train, valid, when):
    run, learn = made(epochs=3)
    h = fit(learn, run.recipe, cbs=At(event, error, when, batch))
    assert len(h.rows) == 3
    for i, row in enumerate(h.rows):
        expect = (train, valid) if i == when else (True, True)
        assert (math.isfinite(row['train_loss']), math.isfinite(row['valid_loss'])) == expect, row
        assert math.isfinite(row['train_accuracy']) == expect[0] and math.isfinite(row['valid_accuracy']) == expect[1]


def test_a_callback_that_mixes_classes_or_has_an_error_rate():
    class Soft(Callback):
        error = .25 # not an exception
        def before_batch(self):
            if self.training: self.learn.yb = (nn.functional.one_hot(self.y.as_subclass(torch.Tensor), 10).float(),)
    run, learn = made()
    h = fit(learn, run.recipe, cbs=Soft())
    assert all(math.isfinite(r['train_loss']) and math.isnan(r['train_accuracy']) and math.isfinite(r['valid_accuracy']) for r in h.rows)


def test_the_best_average_of_weights_is_kept(tmp_path):
    "fastai's `SaveModelCallback` beside a moving average: what it restores is what it measured."
    run, learn = made(ema=.9, epochs=4, subset=128, lr=.05, schedule='flat', opt='sgd')
    learn.path = tmp_path
    h = fit(learn, run.recipe, cbs=[SaveModelCallback(monitor='accuracy')])
    assert learn.validate()[1] == pytest.approx(max(r['valid_accuracy'] for r in h.rows))
    twin = made(ema=.9, epochs=4, subset=128, lr=.05, schedule='flat', opt='sgd')[1]
    rows = fit(twin, run.recipe).rows
    assert twin.validate()[1] == pytest.approx(rows[-1]['valid_accuracy']) # without the callback: the last average
    assert [r['valid_accuracy'] for r in rows] == [r['valid_accuracy'] for r in h.rows]


def test_balanced_classes_of_a_plain_datablock(tmp_path):
    root = photos(tmp_path/'photos', dict(blue=20, green=5, red=10))
    dls = ImageDataLoaders.from_folder(root, valid_pct=.2, seed=0, item_tfms=Resize(32), num_workers=0, bs=8)
    run = create_run(dataset=f'folder:{root}', model='lenet_modern', size=32, epochs=1, class_weights='balanced', bs=8)
    learn = create_learner(run, dls)
    counts = torch.tensor([sum(int(y) == k for y in dls.train_ds.tls[-1]) for k in range(3)])
    assert torch.allclose(learn.loss_func.func.weight, counts.sum()/(3*counts))


def test_find_lr_leaves_the_folder_of_the_learner():
    _, learn = made()
    before = learn.path, learn.model_dir
    find_lr(learn)
    assert (learn.path, learn.model_dir) == before
