"""Budget-aware distillation of reasoning."""
