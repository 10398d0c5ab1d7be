-- Parked changes in whose stead the row is read from its owner: what they say may have been overtaken.

alter table ftstream.parked_change add column reread boolean not null default false;
comment on column ftstream.parked_change.reread is
    'somebody has had it tried again after it was dead, or its table was emptied since';
comment on table ftstream.parked_change is
    'Changes that could not be applied yet; none goes but by being applied, by a later change that tells all of its row, or by a person';
