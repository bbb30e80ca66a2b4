"A record may be given by its id or its folder wherever one is asked for, and what is no record is said in words."
import shutil
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest
from imgstudy.core import StudyError, did_you_mean
from imgstudy.data.split import load_data
from imgstudy.leak import leaked_images, record_leak, train_leakfree
from imgstudy.predict import export_model, load_predictor, predict
from imgstudy.records.record import check_seal, copy_record, load_model, read_record, record_confusion, verify_record
from imgstudy.report.plots import confident_errors_table, plot_classwise, plot_confident_errors
from imgstudy.study.create import create_run
from imgstudy.training.train import train


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return train(create_run(dataset='digits', model='lenet5', epochs=1, subset=100), root=tmp_path_factory.mktemp('runs'))


@pytest.fixture(params=['id', 'folder', 'text'])
def named(request, made, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(made.path.parent))
    return dict(id=made.id, folder=made.path, text=str(made.path))[request.param]


uses = dict(verify_record=verify_record, check_seal=check_seal, load_model=load_model, load_predictor=load_predictor, record_confusion=record_confusion,
            leaked_images=leaked_images, record_leak=record_leak, plot_classwise=plot_classwise, confident_errors_table=confident_errors_table)


@pytest.mark.parametrize('use', uses)
def test_by_id_or_folder(use, named): uses[use](named)


def test_with_further_arguments(named, made, tmp_path):
    assert copy_record(named, tmp_path/'brief').name == made.id
    plot_confident_errors(named, load_data(made.run), n=2); plt.close('all')
    assert len(predict(np.zeros((9, 9), np.uint8), named)) == 1


def test_what_was_changed_is_said_by_name_too(named, made, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path))
    copy = Path(shutil.copytree(made.path, tmp_path/made.id))
    (copy/'record.json').write_text((copy/'record.json').read_text().replace('"created": "20', '"created": "19'))
    for use in (verify_record, check_seal, lambda r: copy_record(r, tmp_path/'brief')):
        with pytest.raises(StudyError, match='record.json was changed'): use(made.id if named == made.id else copy)


@pytest.mark.parametrize('name', ['photo.jpg', 'new/Photo.PNG', Path('scan.tiff')])
def test_an_image_in_place_of_a_record(name, made, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'none'))
    for use in (verify_record, load_model, read_record, lambda r: predict(made.id, r), lambda r: export_model(r, tmp_path/'a.onnx')):
        with pytest.raises(StudyError, match=f'{Path(name).name} is called like an image, where a record belongs'): use(name)
    for images in (made, load_predictor(made)):
        with pytest.raises(StudyError, match='The images come first, then the record'): predict(images, name)


def test_no_list_of_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path))
    for ask in (lambda: read_record('cat_dog-lenet5-s0-00000000'), lambda: read_record(tmp_path/'a'/'b'), lambda: load_model('b')):
        with pytest.raises(StudyError, match='There is no record .* in .*, nor any other: train first') as e: ask()
        assert 'Known' not in str(e.value)
    assert did_you_mean('record', 'a', []) == "There is no record 'a', nor any other." and 'Known: b.' in did_you_mean('record', 'a', ['b'])
