"""What fastrec is compared with: loops in NumPy and PyTorch, and other projects in processes of their own."""
