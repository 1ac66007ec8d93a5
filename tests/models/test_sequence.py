"""The sequence VAE: tokens there and back, teacher forcing against a loop, decoding against both, seeds, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldsaug_ray.common.molecule_tokens import BEGIN, END, FIRST, MASK, PAD, Vocabulary, tokens_of
from ldsaug_ray.config import Objective
from ldsaug_ray.errors import InputError
from ldsaug_ray.models.sequence.model import SequenceVAE
from ldsaug_ray.models.sequence.settings import SequenceVae

SMILES = np.array(["CCO", "c1ccccc1Br", "C[C@@H](N)C(=O)O", "ClCC#N", "C1CC%12CC1CC%12"], "S20")


def model(notation: str = "smiles", **settings: float) -> SequenceVAE:
    given = {"notation": notation, "tokens": Vocabulary.of(notation, SMILES.tolist()).tokens, "max_length": 20}
    return SequenceVAE(SequenceVae(latent_dim=3, embedding=5, hidden=7, **settings), given, seed=0).eval()


def test_tokens_of_smiles_are_atoms_bonds_and_rings():
    assert tokens_of("smiles", "C[C@@H](N)Cl") == ("C", "[C@@H]", "(", "N", ")", "Cl")
    assert tokens_of("smiles", "BrC%12=C/C") == ("Br", "C", "%12", "=", "C", "/", "C")


def test_selfies_are_the_packages_own():
    selfies = pytest.importorskip("selfies", reason="pip install ldsaug_ray[molecules]")
    assert "".join(tokens_of("selfies", "c1ccccc1Br")) == selfies.encoder("c1ccccc1Br")


@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_there_and_back(notation):
    chem = pytest.importorskip("rdkit.Chem", reason="pip install ldsaug_ray[molecules]")
    vocabulary = Vocabulary.of(notation, SMILES.tolist())
    numbers = vocabulary.numbers(SMILES)
    ends = (numbers == END).sum(1)
    assert ends.tolist() == [1] * len(SMILES)
    assert (numbers[np.arange(len(SMILES)), (numbers != PAD).sum(1) - 1] == END).all()
    back = vocabulary.smiles(numbers, 20)

    def form(text: bytes) -> str:
        return chem.MolToSmiles(chem.MolFromSmiles(text.decode()))

    if notation == "smiles":
        assert back.tolist() == SMILES.tolist()
    assert [form(x) for x in back] == [form(x) for x in SMILES]


def test_what_is_too_long_is_cut_between_tokens():
    vocabulary = Vocabulary("smiles", ["C", "[nH]"])
    numbers = np.array([[4, 5, 5, END], [4, 4, 4, 5]])
    assert vocabulary.smiles(numbers, 6).tolist() == [b"C[nH]", b"CCC"]


def test_selfies_are_written_again_whatever_was_decoded():
    chem = pytest.importorskip("rdkit.Chem", reason="pip install ldsaug_ray[molecules]")
    selfies = pytest.importorskip("selfies", reason="pip install ldsaug_ray[molecules]")
    vocabulary = Vocabulary.of("selfies", SMILES.tolist())
    assert selfies.get_semantic_robust_alphabet() <= set(vocabulary.tokens)
    numbers = np.random.default_rng(0).integers(4, len(vocabulary), (50, 12))
    made = vocabulary.smiles(numbers, 400)
    again = vocabulary.smiles(vocabulary.numbers(made), 400)

    def form(text: bytes) -> str:
        return chem.CanonSmiles(text.decode())

    assert [form(x) for x in again if x] == [form(x) for x in made if x]


def test_unknown_tokens_are_refused_by_name():
    vocabulary = Vocabulary.of("smiles", [b"CCO"])
    with pytest.raises(InputError, match=r"F, \[nH\]: not among the 2 tokens .* first in CF\)"):
        vocabulary.numbers(np.array([b"CO", b"CF", b"C[nH]F"]))


def test_a_molecule_without_selfies_is_named():
    pytest.importorskip("selfies", reason="pip install ldsaug_ray[molecules]")
    with pytest.raises(InputError, match=r"FI\(F\)\(F\)\(F\)F: it has no SELFIES .* data.notation: smiles"):
        Vocabulary.of("selfies", [b"CC", b"FI(F)(F)(F)F"])


@torch.no_grad()
def test_likelihood_is_that_of_one_token_after_the_other():
    m = model()
    tokens, z = m.to_tensor(SMILES), torch.randn(len(SMILES), 3)
    wanted = []
    for row, latent in zip(tokens, z, strict=True):
        total, last, state = 0.0, BEGIN, m.decoder.state(latent[None])
        for token in row.tolist():
            logits, state = m.decoder(latent[None], torch.tensor([[last]]), state)
            total += float(torch.log_softmax(logits[0, 0].double(), 0)[token])
            last = token
            if token == END:
                break
        wanted.append(total)
    assert m.token_likelihood(z, tokens).tolist() == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def test_greedy_decodings_are_likelier_than_other_tokens():
    m, z = model(), torch.randn(5, 3)
    decoded = m.decode(z)
    assert torch.equal(m.likelihood(z), m.token_likelihood(z, decoded))
    other = decoded.clone()
    other[:, 0] = torch.where(decoded[:, 0] == FIRST, FIRST + 1, FIRST)
    first = slice(0, 1)
    assert (m.token_likelihood(z, decoded[:, first]) > m.token_likelihood(z, other[:, first])).all()


@torch.no_grad()
def test_the_loss_is_the_evidence_lower_bound(monkeypatch):
    m, tokens = model(word_dropout=0.0), model().to_tensor(SMILES)
    monkeypatch.setattr(torch, "addcmul", lambda mu, *_: mu)  # ε = 0
    weights = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2])
    objective = Objective(beta=0.5, kl_warmup_steps=10)
    mu, logvar = m.encode(tokens)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1)
    wanted = -(weights @ m.token_likelihood(mu, tokens)) + 0.5 * 4 / 10 * (weights @ kl)
    found = m.step_loss(tokens, weights, objective, 4, torch.Generator())["loss"]
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_weights_follow_from_the_seed_alone():
    torch.manual_seed(5)
    a = model().state_dict()
    torch.manual_seed(6)
    b = model().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def test_a_code_is_the_molecules_own_whatever_stands_beside_it():
    m = model()
    together = m.encode(m.to_tensor(SMILES))
    alone = [m.encode(m.to_tensor(SMILES[n : n + 1])) for n in range(len(SMILES))]
    for n in range(2):
        torch.testing.assert_close(together[n], torch.cat([of[n] for of in alone]), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_greedy_decoding_takes_the_likeliest_token_each_time():
    m, z = model(), torch.randn(6, 3)
    tokens = m.decode(z)
    before = torch.cat([torch.full((6, 1), BEGIN), tokens[:, :-1]], 1)
    logits = m.decoder(z, before, m.decoder.state(z))[0]
    logits[:, :, [PAD, BEGIN, MASK]] = -torch.inf
    for row, wanted in zip(tokens.tolist(), logits.argmax(2).tolist(), strict=True):
        stop = row.index(END) + 1 if END in row else len(row)
        assert row[:stop] == wanted[:stop]
        assert set(row[stop:]) <= {PAD}


@torch.no_grad()
def test_a_sample_follows_from_its_latent_and_the_seed():
    m, z = model(temperature=1.0), torch.randn(40, 3)
    drawn = m.decode(z, seed=1)
    assert torch.equal(m.decode(z.flip(0), seed=1).flip(0), drawn)  # not from what stands beside it
    assert not torch.equal(m.decode(z, seed=2), drawn)


@torch.no_grad()
def test_samples_have_the_models_frequencies():
    m, z = model(temperature=1.0), torch.randn(1, 3)
    first = torch.log_softmax(m.decoder(z, torch.tensor([[BEGIN]]), m.decoder.state(z))[0][0, 0].double(), 0).exp()
    first[[PAD, BEGIN, MASK]] = 0
    first /= first.sum()
    counts = torch.zeros(len(m.vocabulary))
    m.max_length = 1
    for seed in range(2000):
        counts[m.decode(z, seed=seed)[0, 0]] += 1
    error = (first * (1 - first) / 2000).sqrt() + 1e-9
    assert ((counts / 2000 - first).abs() < 4 * error).all()


def test_word_dropout_masks_that_share_of_the_tokens_given():
    m = model(word_dropout=0.3)
    seen = []
    m.decoder.embed.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tokens = torch.full((200, 50), 5)
    m.token_likelihood(torch.zeros(200, 3), tokens, torch.Generator().manual_seed(0))
    (given,) = seen
    assert (given[:, 0] == BEGIN).all()
    masked = (given[:, 1:] == MASK).float()
    assert abs(float(masked.mean()) - 0.3) < 4 * (0.3 * 0.7 / masked.numel()) ** 0.5
    assert set(given[:, 1:].unique().tolist()) == {MASK, 5}
