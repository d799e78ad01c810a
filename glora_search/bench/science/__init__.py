"""What a search is worth, and what each part of it adds: questions asked of trained supernets.

- designs: the ways to train a supernet that are compared
- bed: a trained supernet with its data, on which a question is asked
- ends: the winner beside other subnets, averages, fine-tuning, and training alone
- samplers: proposers at equal evaluations of one supernet
- fronts: searches of two objectives at equal evaluations, by their hypervolume
- ranking: whether inherited weights rank subnets as training alone does
- scale: how much is done
- plan: which questions are asked of which supernets
- tables: the answers as tables, with paired intervals
"""
