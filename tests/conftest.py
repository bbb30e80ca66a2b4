"Which tests run where: slow ones on request, cuda and data ones where there is a GPU or data."
import os
import pytest


def pytest_addoption(parser):
    parser.addoption('--run-slow', action='store_true', help='run the tests that take minutes')


def pytest_collection_modifyitems(config, items):
    import torch
    missing = {'slow': None if config.getoption('--run-slow') else 'takes minutes: pytest --run-slow',
               'cuda': None if torch.cuda.is_available() else 'needs an NVIDIA GPU',
               'data': None if os.environ.get('IMGSTUDY_DATA') else 'needs real data sets: set IMGSTUDY_DATA'}
    for item in items:
        for mark, reason in missing.items():
            if mark in item.keywords and reason: item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    "Records go to an empty folder."
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs'))
    return tmp_path/'runs'


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch):
    "What is printed once per process is printed once per test, whichever test read the same images before."
    from imgstudy.data import images, split
    monkeypatch.setattr(split, '_already_said', set())
    monkeypatch.setattr(images, '_told', set())
