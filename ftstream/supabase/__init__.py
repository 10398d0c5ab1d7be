"""Supabase beyond its database: Realtime."""
