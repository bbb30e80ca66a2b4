"A Learner of ours beside a plain fastai one on the same files, export, ids of records, the record's card, class weights."
import io, subprocess, sys
import matplotlib.pyplot as plt, numpy as np, pytest, torch
from PIL import Image
from fastai.vision.all import (CategoryBlock, ClassificationInterpretation, CrossEntropyLossFlat, DataBlock, ImageBlock, Learner, Normalize,
                               PILImage, Resize, get_image_files, load_learner, parent_label)
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from imgstudy.apply import plot_explained
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.content import place_of
from imgstudy.data.loaders import create_dls, norm_stats
from imgstudy.data.split import load_data
from imgstudy.predict import load_predictor
from imgstudy.records.record import load_model, read_record, verify_record
from imgstudy.report.explain import plot_grad_cam
from imgstudy.runs import run_to_dict
from imgstudy.study.create import create_run
from imgstudy.training.fit import fit
from imgstudy.training.learner import balanced_weights, create_learner
from imgstudy.training.train import train


def photos(root, many=dict(blue=16, green=16, red=16), size=(50, 40)):
    rng = np.random.default_rng(0)
    for k, (name, n) in enumerate(many.items()):
        (root/name).mkdir(parents=True)
        for i in range(n):
            a = rng.integers(0, 90, (*size[::-1], 3)); a[..., k % 3] += 120
            Image.fromarray(a.astype(np.uint8)).save(root/name/f'{i}.png')
    return root


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Our Learner, and a plain one of the same weights on the same files."
    root = photos(tmp_path_factory.mktemp('own')/'photos')
    run = create_run(dataset=f'folder:{root}', model='lenet_modern', size=32, epochs=2, precision='fp32', bs=8)
    seed_everything(0)
    data = load_data(run)
    learn = create_learner(run, create_dls(run, data))
    fit(learn, run.recipe, lines=1)
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      item_tfms=Resize((32, 32), method='squish'), batch_tfms=Normalize.from_stats(*norm_stats(None, data)))
    plain = Learner(block.dataloaders(root, num_workers=0), learn.model, loss_func=CrossEntropyLossFlat())
    return learn, plain, root


def shapes(f):
    im = Image.open(f); im.load()
    return dict(path=f, string=str(f), pil=PILImage.create(f), array=np.array(im), bytes=f.read_bytes(), tensor=torch.tensor(np.array(im)))


@pytest.mark.parametrize('kind', ['path', 'string', 'pil', 'array', 'bytes', 'tensor'])
@pytest.mark.parametrize('name', ['blue/0', 'green/3', 'red/7', 'red/9'])
def test_predict_is_that_of_a_plain_learner(two, kind, name):
    learn, plain, root = two
    item = shapes(root/f'{name}.png')[kind]
    with learn.no_bar(), plain.no_bar(): ours, theirs = learn.predict(item), plain.predict(item)
    assert ours[0] == theirs[0] and ours[1] == theirs[1]
    assert torch.allclose(ours[2], theirs[2], atol=1e-5)


def test_predict_takes_what_pillow_opens_too(two):
    learn, _, root = two
    with learn.no_bar():
        expect = learn.predict(root/'red/7.png')[2]
        for item in (Image.open(root/'red/7.png'), Image.open(root/'red/7.png').convert('RGBA')):
            assert torch.allclose(learn.predict(item)[2], expect, atol=1e-6)
        turned = Image.open(root/'red/7.png').transpose(Image.Transpose.ROTATE_90) # EXIF 6: to be turned by 270 degrees
        exif = Image.Exif(); exif[0x0112] = 6
        turned.save(buffer := io.BytesIO(), 'png', exif=exif)
        assert torch.allclose(learn.predict(buffer.getvalue())[2], expect, atol=1e-6)
        with pytest.raises(StudyError, match='no image if it holds float64'): learn.predict(np.random.rand(9, 9, 3))


@pytest.mark.parametrize('with_labels', [False, True])
@pytest.mark.parametrize('as_strings', [False, True])
def test_test_dl_is_that_of_a_plain_learner(two, with_labels, as_strings):
    learn, plain, root = two
    files = get_image_files(root)[::5]
    files = [str(f) for f in files] if as_strings else files
    if as_strings and with_labels: # parent_label of fastai takes paths; ours both
        with learn.no_bar(): return [learn.get_preds(dl=learn.dls.test_dl(files, with_labels=True))]
    with learn.no_bar(), plain.no_bar():
        (ours, y), (theirs, yt) = (l.get_preds(dl=l.dls.test_dl(files, with_labels=with_labels)) for l in two[:2])
    assert torch.allclose(ours, theirs, atol=1e-5) and (torch.equal(y, yt) if with_labels else y is yt is None)
    assert len({*y.tolist()}) == 3 if with_labels else True


def test_a_label_that_no_folder_tells_is_asked_for(two, tmp_path):
    learn, _, root = two
    (tmp_path/'new.png').write_bytes((root/'red/7.png').read_bytes())
    with pytest.raises(StudyError, match='Give pairs'), learn.no_bar(): learn.get_preds(dl=learn.dls.test_dl([tmp_path/'new.png'], with_labels=True))
    with learn.no_bar(): assert learn.get_preds(dl=learn.dls.test_dl([(tmp_path/'new.png', 'red')], with_labels=True))[1].item() == 2


def test_export_and_load_learner(two, tmp_path):
    learn, _, root = two
    before, opt = learn.dls, type(learn.opt)
    with learn.no_bar():
        expect = learn.predict(root/'red/7.png')[2]
        learn.export(tmp_path/'m.pkl')
        assert learn.dls is before and torch.equal(learn.predict(root/'red/7.png')[2], expect) # goes on as it was
        again = load_learner(tmp_path/'m.pkl')
        with again.no_bar():
            for item in shapes(root/'red/7.png').values(): assert torch.allclose(again.predict(item)[2], expect, atol=1e-6)
            assert again.get_preds(dl=again.dls.test_dl([root/'red/7.png']*3))[0].shape == (3, 3)
    written = (tmp_path/'m.pkl').read_bytes()
    assert str(root.parent).encode() not in written and b'7.png' not in written, 'no path and no list of photographs leaves the machine'
    code = f'from fastai.vision.all import *; print(load_learner({str(tmp_path/"m.pkl")!r}).predict({str(root/"red/7.png")!r})[0])'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True) # without an import of ours
    assert done.stdout.strip().endswith('red'), done.stderr[-800:]


def test_an_export_that_fails_leaves_the_learner_as_it_was(two, tmp_path):
    learn, _, root = two
    dls = learn.dls
    with pytest.raises(Exception): learn.export(tmp_path/'none/m.pkl')
    assert learn.dls is dls and len(learn.dls.train_ds)


def test_interpretation_of_fastai(two):
    learn, _, _ = two
    with learn.no_bar(): found = ClassificationInterpretation.from_learner(learn)
    assert found.confusion_matrix().sum() == len(learn.dls.valid_ds)


@pytest.fixture(scope='module')
def uneven(tmp_path_factory):
    root = photos(tmp_path_factory.mktemp('uneven')/'photos', dict(cat=60, dog=10, owl=24))
    make = lambda **more: create_run(dataset=f'folder:{root}', model='lenet5', size=32, epochs=2, precision='fp32', **more)
    runs = tmp_path_factory.mktemp('runs')
    return [train(make(**more), root=runs) for more in ({}, dict(class_weights='balanced'))], runs


def test_balanced_accuracy_is_that_of_sklearn(uneven):
    for record in uneven[0]:
        p = record.predictions
        assert record.metrics['balanced_accuracy'] == pytest.approx(balanced_accuracy_score(p['target'], p['pred']))
        verify_record(record)
        older = read_record(record.path)
        older.metrics.pop('balanced_accuracy')
        verify_record(older)


@pytest.mark.parametrize('many', [(60, 10, 24), (1, 1, 1), (500, 1, 7), (3, 4, 5, 6)])
def test_weights_are_those_of_sklearn(many):
    labels = np.repeat(range(len(many)), many)
    assert balanced_weights(many) == pytest.approx(compute_class_weight('balanced', classes=np.arange(len(many)), y=labels).tolist())


def test_class_weights_keep_old_ids(uneven):
    plain, weighed = uneven[0]
    assert plain.id != weighed.id and run_to_dict(plain.run)['recipe']['class_weights'] is None
    with pytest.raises(StudyError, match='balanced'): create_run(dataset='digits', model='lenet5', class_weights='uneven')


def test_models_and_pictures_by_id(uneven, monkeypatch):
    (record, _), runs = uneven
    monkeypatch.setenv('IMGSTUDY_RUNS', str(runs))
    a, b, c = (load_model(r).state_dict() for r in (record, record.id, record.path))
    assert all(torch.equal(a[k], b[k]) and torch.equal(a[k], c[k]) for k in a)
    photo = next(iter(get_image_files(place_of(record.run.dataset))))
    heats = [plot_grad_cam(r, p).axes[1].images[1].get_array() for r in (record, record.id) for p in (photo, str(photo), [photo])]
    assert all(np.array_equal(h, heats[0]) for h in heats)
    with pytest.raises(StudyError, match='no record'): load_model('photos-lenet5-s0-00000000')


def test_a_record_shows_itself(uneven):
    for record in uneven[0]:
        shown, html = repr(record), record._repr_html_()
        assert len(shown.splitlines()) == 2 and record.id in shown and record.id in html
        assert str(record.path.parent) not in shown + html and '/' not in shown.replace('interval', ''), 'no path'
        assert f"{100*record.metrics['accuracy']:.1f} %" in shown and f"{100*record.metrics['balanced_accuracy']:.1f} %" in html


@pytest.mark.parametrize('n', [1, 2, 3])
def test_a_few_photographs_are_large_enough_to_be_seen(n, uneven, monkeypatch):
    record, photos = uneven[0][0], get_image_files(place_of(uneven[0][0].run.dataset))[:n]
    monkeypatch.setenv('IMGSTUDY_RUNS', str(uneven[1]))
    for fig in (plot_grad_cam(record, photos[0] if n == 1 else [*photos]), plot_explained([*photos], load_predictor(record))):
        fig.canvas.draw()
        panels = [ax.get_window_extent() for ax in fig.axes if ax.images]
        assert len(panels) == 2*n and all(min(p.width, p.height) > 150 for p in panels), [(p.width, p.height) for p in panels]
        plt.close(fig)


@pytest.mark.parametrize('what, says', [('phto.jpg', 'There is no file .*phto.jpg: check the path'), ('note.jpg', 'note.jpg: This is no image, whatever its name, but text')])
def test_a_picture_that_cannot_be_explained_is_named(what, says, uneven, tmp_path):
    (tmp_path/'note.jpg').write_text('a note')
    with pytest.raises(StudyError, match=says): plot_grad_cam(uneven[0][0], tmp_path/what)
